# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import shutil

import pytest

from monai_fewshot.apps.review.reviewed_scans import class_names_of, list_reviewed_scans


def test_scans_are_sorted_by_the_quality_of_their_worst_class_and_then_by_name(folder, hostile, classes):
    found = list_reviewed_scans(folder)
    assert [(scan.name, scan.quality, scan.worst_class) for scan in found] == [
        ("phantom_2", 0.55, "right kidney"),
        ("phantom_1", 0.75, "liver <b>"),
        (hostile, None, ""),
    ]
    assert {scan.source["name"] for scan in found} == {hostile, "phantom_1", "phantom_2"}, "of all runs"
    assert class_names_of(folder) == classes


def test_without_predictions_scans_are_sorted_by_name(folder, tmp_path, hostile):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "quality.csv").unlink()
    assert [scan.name for scan in list_reviewed_scans(tmp_path / "copy")] == [hostile, "phantom_1", "phantom_2"]


def test_scans_of_masks_made_by_other_means_are_named(folder, made, tmp_path):
    shutil.copy(folder / "phantom_1_seg.nii.gz", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"phantom_1, but nothing tells where they lie: .* as --scans"):
        list_reviewed_scans(tmp_path)
    (scan,) = list_reviewed_scans(tmp_path, made / "scans")
    assert scan.source["image"] == str(made / "scans" / "phantom_1.nii.gz")
    (tmp_path / "phantom_1_seg.nii.gz").rename(tmp_path / "other_seg.nii.gz")
    with pytest.raises(FileNotFoundError, match="none of the scans in"):
        list_reviewed_scans(tmp_path, made / "scans")


def test_a_folder_without_masks_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no masks, which are called NAME_seg"):
        list_reviewed_scans(tmp_path)
    with pytest.raises(FileNotFoundError, match="is no folder: give the folder"):
        list_reviewed_scans(tmp_path / "absent")
