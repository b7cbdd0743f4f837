# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging

import nibabel
import numpy as np
import pytest
from dicom_files import write_rtstruct, write_seg, write_series

from monai_fewshot.data import add_seed_labels, annotated_classes, annotated_scans, series_name, unlabeled_scans


def _labels():
    labels = np.zeros((12, 10, 6), np.uint8)
    labels[2:5, 3:7, 1:4] = 1
    labels[6:9, 1:4, 3:5] = 3
    return labels


def test_annotated_series_among_unlabeled_ones(tmp_path):
    files = write_series(tmp_path / "study" / "a", series_uid="1.1")
    for number in (2, 3):
        write_series(tmp_path / "study" / "b", series_uid=f"1.{number}", file_name=f"{number}_{{}}")
    seg = write_seg(tmp_path / "seg.dcm", files, _labels(), ["liver", "spleen", "kidney"])
    annotated = annotated_scans(tmp_path / "study", image=tmp_path / "study" / "a", label=seg)
    left = unlabeled_scans(tmp_path / "study", annotated)
    assert sorted(scan["name"] for scan in left) == sorted(map(series_name, ("1.2", "1.3")))
    with pytest.raises(ValueError, match="has no scan beside the annotated one"):
        unlabeled_scans(tmp_path / "study" / "a", annotated)
    assert annotated_classes(annotated, tmp_path / "study") == {1: "liver", 2: "spleen", 3: "kidney"}
    assert annotated_classes(annotated, tmp_path / "study", ["kidney", "liver"]) == {3: "kidney", 1: "liver"}


def test_regions_of_contours_are_classes(tmp_path):
    files = write_series(tmp_path / "a")
    path = write_rtstruct(tmp_path / "rt.dcm", files, {"liver": [np.eye(3)], "spleen": [np.eye(3)]})
    annotated = annotated_scans(tmp_path, image=tmp_path / "a", label=path)
    assert annotated_classes(annotated, tmp_path) == {1: "liver", 2: "spleen"}


def test_classes_without_names_are_those_of_the_label(tmp_path):
    paths = [tmp_path / f"{name}.nii.gz" for name in ("image", "label")]
    for path in paths:
        nibabel.save(nibabel.Nifti1Image(_labels(), np.eye(4)), path)
    annotated = annotated_scans(tmp_path, image=paths[0], label=paths[1])
    assert annotated_classes(annotated, tmp_path) == {1: "class 1", 3: "class 3"}


class TestSeedLabels:
    SCANS = tuple({"name": name, "image": f"{name}.nii.gz"} for name in ("a", "b", "c", "d", "e.seg"))

    def folder(self, path, *names):
        path.mkdir()
        for name in names:
            (path / name).touch()
        return path

    def test_masks_are_found_by_the_names_of_scans(self, tmp_path, caplog):
        masks = self.folder(tmp_path / "masks", "a_seg.nii.gz", "b.nrrd", "c_seg.seg.nrrd", "x_seg.nii.gz", "d.txt")
        with caplog.at_level(logging.INFO, "monai_fewshot"):
            seeded = add_seed_labels(self.SCANS, masks)
        expected = {"a": "a_seg.nii.gz", "b": "b.nrrd", "c": "c_seg.seg.nrrd"}
        assert {scan["name"]: scan["label"] for scan in seeded if "label" in scan} == {
            name: str(masks / file) for name, file in expected.items()
        }
        assert [scan["image"] for scan in seeded] == [scan["image"] for scan in self.SCANS]
        assert not any("label" in scan for scan in self.SCANS)
        assert "3 of 5 scans have seed labels." in caplog.text

    def test_without_a_folder_scans_stay_as_they_are(self):
        assert add_seed_labels(self.SCANS, None) == list(self.SCANS)

    def test_pictures(self, tmp_path):
        masks = self.folder(tmp_path / "masks", "a_seg.png")
        assert add_seed_labels(self.SCANS, masks)[0]["label"] == str(masks / "a_seg.png")

    def test_bad_folders(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"seed_labels: .*absent is no folder\. Name a folder of masks"):
            add_seed_labels(self.SCANS, tmp_path / "absent")
        with pytest.raises(ValueError, match=r"no file in .*none is called after .*, such as a_seg\.nii\.gz"):
            add_seed_labels(self.SCANS, self.folder(tmp_path / "none", "other_seg.nii.gz"))
        with pytest.raises(ValueError, match=r"several masks fit one scan: .*b\.nii\.gz, .*b_seg\.nii\.gz\. Keep one"):
            add_seed_labels(self.SCANS, self.folder(tmp_path / "two", "b.nii.gz", "b_seg.nii.gz"))
