# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from dicom_files import write_rtstruct, write_seg, write_series

from monai_fewshot.data import annotated_classes, annotated_scans, series_name, unlabeled_scans


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
