# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The bundle of self-training on 2D pictures of color, and on volumes of several channels."""

from __future__ import annotations

import csv
import json
import re

import nibabel
import numpy as np
import pytest
from image_bundles import load, refusal, run, workflow
from PIL import Image
from small_pictures import SIZES, write_pictures

from monai_fewshot.apps.prepare import prepare_images

pytestmark = pytest.mark.default_dtype
BUNDLE = "self_training"
SHORT = {"batch_size": 4, "unlabeled_batch_size": 2, "epoch_length": 30, "max_epochs": 2}
QUERIES = ["d", "e", "f"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six pictures, and the same as a data set of one fold."""
    folder = write_pictures(tmp_path_factory.mktemp("pictures"))
    entries = [{"image": f"images/{name}.png", "label": f"masks/{name}.png"} for name in SIZES]
    folds = [{"query": QUERIES, "support": "a"}]
    content = {"labels": {"0": "background", "1": "ellipse"}, "training": entries, "folds": folds}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """Model of a training on the fold, whose support is annotated."""
    models = tmp_path_factory.mktemp("models")
    run(BUNDLE, "train", ckpt_dir=str(models), dataset_dir=str(folder), fold=0, **SHORT)
    return str(models / "model.pt")


def example(folder):
    return {
        "dataset_dir": str(folder / "images"),
        "support_image": str(folder / "images" / "a.png"),
        "support_label": str(folder / "masks" / "a.png"),
    }


def dice(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def test_the_checkpoint_tells_that_it_is_of_color_pictures(trained):
    settings = load(trained)["settings"]
    preparation = settings["preparation"]
    assert (preparation["channels"], preparation["pictures"]) == (3, True)
    assert preparation["classes"] == {1: "ellipse"}
    assert settings["network"]["network"]["in_channels"] == 12


def test_masks_have_the_size_of_their_pictures_and_are_seen(folder, trained, tmp_path):
    run(BUNDLE, "inference", dataset_dir=str(folder / "images"), checkpoint=trained, output_dir=str(tmp_path))
    masks = {file.name: np.asarray(Image.open(file)) for file in sorted(tmp_path.glob("[!.]*"))}
    assert {name.removesuffix("_seg.png"): mask.shape for name, mask in masks.items()} == SIZES
    assert set(np.unique(masks["b_seg.png"])) == {0, 255}
    truth = {name: np.asarray(Image.open(folder / "masks" / f"{name}.png")) > 0 for name in SIZES}
    assert np.mean([dice(masks[f"{name}_seg.png"] > 0, truth[name]) for name in QUERIES]) > 0.8


def test_the_queries_of_a_fold_are_scored(folder, trained, tmp_path):
    run(BUNDLE, "evaluate", dataset_dir=str(folder), checkpoint=trained, output_dir=str(tmp_path), fold=0)
    with open(tmp_path / "results.csv", newline="") as file:
        scores = {row["scan"]: float(row["dice"]) for row in csv.DictReader(file) if row["protocol"] == "whole_volume"}
    assert sorted(scores) == QUERIES
    assert np.mean(list(scores.values())) > 0.8


@pytest.mark.parametrize(
    ("mode", "problem"),
    [("L", "is a gray picture; expected a color one"), ("RGBA", "has a fourth channel, transparency")],
)
def test_pictures_unlike_those_learned_from_are_named(mode, problem, trained, tmp_path):
    other = write_pictures(tmp_path / "other", "ab", mode) / "images"
    text = refusal(BUNDLE, "inference", dataset_dir=str(other), checkpoint=trained, output_dir=str(tmp_path / "masks"))
    assert "2 of 2 scans cannot be segmented" in text
    assert f"{other / 'a.png'}: {problem}" in text


def test_scans_are_no_pictures(dataset_dir, folder, trained, tmp_path):
    options = {"checkpoint": trained, "output_dir": str(tmp_path / "masks")}
    text = refusal(BUNDLE, "inference", dataset_dir=str(dataset_dir), **options)
    assert "The model is of 2D pictures, but 6 of 6 scans are volumes: scan_0" in text
    text = refusal(BUNDLE, "inference", dataset_dir=str(folder / "images"), outputs=["nifti"], **options)
    assert "6 of 6 scans are 2D pictures, whose masks are PNG files" in text


def test_another_number_of_channels_than_the_pictures_have_is_refused(folder, tmp_path):
    text = refusal(BUNDLE, "train", ckpt_dir=str(tmp_path), channels=1, **example(folder), **SHORT)
    assert re.search(r"a\.png: is a color picture; expected a gray one", text)


def test_required_properties_are_there(folder, trained, tmp_path):
    made = workflow(BUNDLE, "train", ckpt_dir=str(tmp_path), **example(folder), **SHORT)
    assert made.check_properties() == []
    options = {"checkpoint": trained, "output_dir": str(tmp_path / "masks")}
    made = workflow(BUNDLE, "inference", dataset_dir=str(folder / "images"), **options)
    assert made.check_properties() == []


def test_prepared_images_of_color_are_volumes_of_three_channels(tmp_path):
    source = write_pictures(tmp_path / "source")
    data = prepare_images(source, tmp_path / "data", size=40, colors=True, workers=0, num_folds=3)
    assert nibabel.load(data / "imagesTr" / "a.nii.gz").shape == (29, 40, 1, 3)
    options = {"dataset_dir": str(data), "fold": 0}
    run(BUNDLE, "train", ckpt_dir=str(tmp_path / "models"), channels=3, **options, **SHORT)
    model = str(tmp_path / "models" / "model.pt")
    run(BUNDLE, "evaluate", checkpoint=model, output_dir=str(tmp_path / "eval"), **options)
    with open(tmp_path / "eval" / "results.csv", newline="") as file:
        assert np.mean([float(row["dice"]) for row in csv.DictReader(file)]) > 0.8
    run(BUNDLE, "inference", checkpoint=model, output_dir=str(tmp_path / "masks"), dataset_dir=str(data))
    assert nibabel.load(tmp_path / "masks" / "b_seg.nii.gz").shape == (40, 40, 1)
    text = refusal(BUNDLE, "train", ckpt_dir=str(tmp_path / "models"), **options, **SHORT)
    assert "has 3 channels of (29, 40, 1) voxels; expected 1" in text
