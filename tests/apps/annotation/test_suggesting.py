# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import re

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

import monai_fewshot
from monai_fewshot.apps.annotation import suggest
from monai_fewshot.apps.annotation.rounds import Correction, RefineRound
from monai_fewshot.apps.annotation.scan_features import feature_distances, scan_features
from monai_fewshot.apps.annotation.suggested_slices import spaced_peaks
from monai_fewshot.apps.command.cli import app
from monai_fewshot.data import VolumePreparation
from monai_fewshot.metrics import QUALITY_TABLE, PredictedQuality

pytestmark = pytest.mark.default_dtype
FIRST, SECOND, THIRD = "phantom_001", "phantom_002", "phantom_003"


def rows(file):
    with open(file, newline="") as stream:
        return list(csv.DictReader(stream))


def blob(path, places, seed=0):
    """A scan of noise with a bright block that begins in its slices at these places."""
    image = np.random.default_rng(seed).normal(0, 0.05, (24, 24, len(places)))
    for number, place in enumerate(places):
        image[place : place + 6, 8:16, number] += 1
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), np.diag([1, 1, 3, 1])), path)


@pytest.fixture
def blobs(tmp_path):
    """Five scans; "b" lies between "a" and "c", and "d" is like "e" alone."""
    for number, (name, place) in enumerate({"a": 2, "b": 3, "c": 4, "d": 15, "e": 16}.items()):
        blob(tmp_path / "scans" / f"{name}.nii.gz", [place] * 12, number)
    return tmp_path / "scans"


def test_before_any_annotation_the_scan_in_the_middle_comes_first(blobs, tmp_path):
    said = []
    found = suggest(blobs, 2, 0, output=tmp_path / "out.csv", say=said.append)
    assert found[0].scan in {"a", "b", "c"}
    assert (found[0].reason, said) == ("in the middle of all scans", [f"Suggestions: {tmp_path / 'out.csv'}"])
    assert found[1].scan in {"d", "e"}
    assert (found[1].alike, found[1].reason) == (1, "unlike what is annotated, stands for 1 other scan")
    first, second = rows(tmp_path / "out.csv")
    assert (first["rank"], first["distance"], first["slices"]) == ("1", "", "")
    assert float(second["distance"]) == pytest.approx(found[1].distance, abs=1e-4)


def test_slices_stand_for_the_others_where_the_scan_changes(tmp_path):
    blob(tmp_path / "scans" / "a.nii.gz", [2] * 6 + [15] * 6)
    (only,) = suggest(tmp_path / "scans", 1, 2, output=tmp_path / "out.csv", say=lambda text: None)
    assert [place // 6 for place in only.slices] == [0, 1]


def test_distances_are_those_of_the_contents(blobs):
    scans = [{"name": name, "image": str(blobs / f"{name}.nii.gz")} for name in "abcde"]
    distances = feature_distances(scan_features(scans, VolumePreparation()))
    assert np.median(distances[np.triu_indices(5, 1)]) == pytest.approx(1)
    assert distances[0, 1] < distances[0, 2] < distances[0, 3]


def test_with_masks_the_example_is_left_out_and_poor_masks_come_first(masks):
    names = {1: "liver"}
    quality = {FIRST: 0.1, SECOND: 0.9, THIRD: 0.2}
    QUALITY_TABLE.write(
        masks / "quality.csv",
        [
            PredictedQuality(scan, number, names[number], dice, 0, 1)
            for scan, dice in quality.items()
            for number in names
        ],
    )
    first, second = suggest(masks, 3, 2, device="cpu", say=lambda text: None)
    assert (first.scan, second.scan) == (THIRD, SECOND)
    assert first.predicted_dice == pytest.approx(0.2)
    assert first.reason.startswith("predicted Dice 0.20 (1 of 3 are lower)")
    assert len(first.slices) == 2
    assert [row["scan"] for row in rows(masks / "suggestions.csv")] == [THIRD, SECOND]


def test_corrected_scans_are_annotated_ones(masks):
    folder = masks / "rounds" / "1"
    RefineRound(folder, (Correction(THIRD, "0", folder / "a", folder / "b"),), {1: "liver"}, False, 1.0).write()
    assert [each.scan for each in suggest(masks, 3, 0, device="cpu", say=lambda text: None)] == [SECOND]
    with pytest.raises(ValueError, match="No scan is left to suggest: all 3 scans"):
        suggest(masks, candidates=[THIRD], device="cpu")
    with pytest.raises(ValueError, match="There are no scans called absent in"):
        suggest(masks, candidates=["absent"], device="cpu")


def test_places_of_the_least_certain_slices_lie_apart():
    values = np.array([0, 9, 8, 1, 1, 7, 0])
    assert spaced_peaks(values, 2, 2) == (1, 5)
    assert spaced_peaks(values, 9, 4) == (1, 5)
    assert spaced_peaks(np.zeros(3), 2, 1) == ()


def test_the_command_prints_a_table(blobs, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    words = ["suggest", str(blobs), "--number", "1", "--output", str(tmp_path / "out.csv")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0
    assert re.search(r"1 │ [abc] +│ [\d, ]+│ in the middle of all scans", result.output)
    result = CliRunner().invoke(app, ["suggest", str(tmp_path / "none")])
    assert (result.exit_code, "does not exist" in result.output) == (2, True)
    result = CliRunner().invoke(app, ["suggest", str(blobs), "--number", "0"])
    assert (result.exit_code, "--number is 0, --slices 3: give at least 1 scan" in result.output) == (2, True)


def test_suggesting_is_called_from_the_package():
    assert monai_fewshot.suggest is suggest
