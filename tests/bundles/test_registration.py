# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The registration bundle: a patient, and the same one moved by an affine transform that is known."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import pytest
from image_bundles import BUNDLES, run, workflow
from moved_patients import SPACING, bounds, image_at, label_at, moved, other_contrast, places, propagated

from monai_fewshot.visualize import read_cases

CONFIGS = BUNDLES / "registration" / "configs"
PIXEL = SPACING.min()


@pytest.fixture(scope="module")
def data(scans, tmp_path_factory):
    """A fold whose support is a patient, its query the patient moved, in another contrast."""
    folder = tmp_path_factory.mktemp("patients")
    points, affine = places(), np.diag([*SPACING, 1])
    label = label_at(points)
    patients = {
        "atlas": (image_at(points), label),
        "moved": (other_contrast(image_at(moved(points))), propagated(label, moved(points))[0]),
    }
    for name, (image, labels) in patients.items():
        scans.save(folder / "imagesTr" / f"{name}.nii.gz", image, affine)
        scans.save(folder / "labelsTr" / f"{name}.nii.gz", labels, affine)
    files = [{"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"} for name in patients]
    classes = {"0": "background", "1": "liver", "2": "spleen"}
    content = {"labels": classes, "training": files, "folds": [{"query": ["moved"], "support": "atlas"}]}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def dice(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def test_evaluation_recovers_the_transform_to_a_pixel(data, tmp_path):
    """An error of a pixel leaves a Dice that follows from the shapes, and that copying the label does not reach."""
    run("registration", "evaluate", dataset_dir=str(data), output_dir=str(tmp_path))
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["scan"], row["protocol"]) for row in rows].count(("moved", "alpnet")) == 2
    assert [(row["scan"], row["protocol"]) for row in rows].count(("moved", "whole_volume")) == 2
    atlas, points = label_at(places()), moved(places())
    truth = propagated(atlas, points)[0]
    for row in rows:
        number = int(row["class_number"])
        least = bounds(atlas, number, points, PIXEL)[2]
        assert dice(atlas == number, truth == number) < least
        assert float(row["dice"]) > least
    cases = read_cases(tmp_path / "cases.npz")
    assert {case.scan for case in cases} == {"moved"}
    assert "Registration" in (tmp_path / "report.html").read_text()
    settings = json.loads((tmp_path / "results.json").read_text())["provenance"]["settings"]
    assert settings["classes"] == ["liver", "spleen"]


@pytest.mark.parametrize("supports", [1, 2])
def test_a_mask_lies_where_transforms_can_put_it_that_err_by_a_pixel(supports, data, tmp_path):
    made = workflow(
        "registration",
        "inference",
        dataset_dir=str(data / "imagesTr" / "moved.nii.gz"),
        support_image=[str(data / "imagesTr" / "atlas.nii.gz")] * supports,
        support_label=[str(data / "labelsTr" / "atlas.nii.gz")] * supports,
        output_dir=str(tmp_path),
    )
    assert made.check_properties() == []
    made.run()
    mask, scan = (nibabel.load(f) for f in (tmp_path / "moved_seg.nii.gz", data / "imagesTr" / "moved.nii.gz"))
    np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-4)
    found = np.asarray(mask.dataobj)
    assert set(np.unique(found)) == {0, 1, 2}
    for number in (1, 2):
        must, may, _ = bounds(label_at(places()), number, moved(places()), PIXEL)
        assert not (must & (found != number)).any()
        assert not (~may & (found == number)).any()


def test_configurations_agree():
    evaluate, inference = (json.loads((CONFIGS / f"{name}.json").read_text()) for name in ("evaluate", "inference"))
    for key in ("model", "registration", "placement", "keep_largest"):
        assert evaluate[key] == inference[key], key
