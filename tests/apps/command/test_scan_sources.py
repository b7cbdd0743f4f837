# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os

import pytest

from monai_fewshot.apps.command.scan_sources import list_examples, list_scans, write_scan_list
from monai_fewshot.apps.phantom import make_phantom_studies
from monai_fewshot.data import load_class_names, load_scans


def test_scans_are_found_at_any_depth_and_what_is_none_is_passed_over(phantom, tmp_path):
    file = phantom / "imagesTr" / "phantom_001.nii.gz"
    places = ["a/scan.nii.gz", "b/deep/scan.nii.gz", "b/other.nii.gz", "b/other.seg.nrrd", ".hidden/x.nii.gz"]
    for place in [*places, "masks/scan_seg.nii.gz", "a/label.nii.gz", "notes.txt"]:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        os.link(file, tmp_path / place)
    scans, problems = list_scans(tmp_path, [tmp_path / "masks", tmp_path / "a" / "label.nii.gz"])
    found = {scan["name"]: os.path.relpath(scan["image"], tmp_path) for scan in scans}
    assert found == {"a_scan": "a/scan.nii.gz", "b_deep_scan": "b/deep/scan.nii.gz", "other": "b/other.nii.gz"}
    assert problems == []


def test_what_is_left_out_is_known_by_any_path(phantom, tmp_path):
    """The current folder is told without symbolic links, and the label with them, or the other way round."""
    file = phantom / "imagesTr" / "phantom_001.nii.gz"
    for place in ("disk/scans/a.nii.gz", "disk/scans/a_label.nii.gz", "disk/scans/masks/a_seg.nii.gz"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        os.link(file, tmp_path / place)
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    for here, there in (("link", "disk"), ("disk", "link")):
        left_out = [tmp_path / there / "scans" / name for name in ("a_label.nii.gz", "masks")]
        assert [scan["name"] for scan in list_scans(tmp_path / here / "scans", left_out)[0]] == ["a"]


@pytest.mark.parametrize("places", [("a.nii.gz", "a.nii"), ("x/b.nii.gz", "y/b.nii.gz", "x_b.nii.gz")])
def test_scans_that_would_share_a_mask_are_refused(places, phantom, tmp_path):
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        os.link(phantom / "imagesTr" / "phantom_001.nii.gz", tmp_path / place)
    with pytest.raises(ValueError, match=r"scans share a name: .*Rename or remove files"):
        list_scans(tmp_path)


def test_a_data_set_lists_its_scans_without_labels(phantom):
    scans, _ = list_scans(phantom)
    assert [sorted(scan) for scan in scans] == [["image", "name"]] * 3
    assert [scan["image"] for scan in list_scans(scans[0]["image"])[0]] == [scans[0]["image"]]


def test_dicom_series_are_scans_and_a_damaged_file_is_a_problem(tmp_path):
    make_phantom_studies(tmp_path, num_studies=2, size=(32, 32, 8))
    scans, problems = list_scans(tmp_path)
    assert [scan["image"] for scan in scans] == [scan["image"] for scan in load_scans(tmp_path / "archive")]
    assert any((tmp_path / "labels").iterdir())
    assert problems == []
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(b"\0" * 128 + b"DICM" + b"\1\2\3")
    again, (problem,) = list_scans(tmp_path)
    assert len(again) == len(scans)
    assert problem.problem.startswith("1 DICOM file(s) cannot be read")
    assert "damaged" not in str(problem.file)
    listed = load_scans(write_scan_list(tmp_path / "list", scans, {1: "liver"}))
    assert [scan["image"] for scan in listed] == [scan["image"] for scan in scans]
    assert load_class_names(tmp_path / "list") == {1: "liver"}


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no"):
        list_scans(tmp_path)


def test_an_example_needs_both_files(phantom):
    image = phantom / "imagesTr" / "phantom_001.nii.gz"
    with pytest.raises(FileNotFoundError, match=r"The label of an example, nowhere.nii.gz, does not exist"):
        list_examples([(image, "nowhere.nii.gz")])
