# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from dicom_files import made_pixels, write_rtstruct, write_seg, write_series

from monai_fewshot.data import name_classes


def _label(folder, **names):
    """A label file in a data set with or without names."""
    (folder / "labelsTr").mkdir(parents=True)
    if names:
        (folder / "dataset.json").write_text(json.dumps({"labels": {"0": "background", **names}}))
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)), folder / "labelsTr" / "a.nii.gz")
    return [{"name": "a", "image": "", "label": str(folder / "labelsTr" / "a.nii.gz")}]


def test_given_names_go_first(tmp_path):
    supports = _label(tmp_path, **{"1": "heart"})
    assert name_classes([1, 2], ["liver", "spleen"], supports) == {1: "liver", 2: "spleen"}
    assert name_classes([1, 3], ["liver", "spleen", "aorta", "stomach"]) == {1: "liver", 3: "aorta"}


def test_names_of_numbers_with_gaps():
    assert name_classes([850, 205], ["ventricle", "aorta"]) == {205: "ventricle", 850: "aorta"}


def test_names_that_are_known_already():
    assert name_classes({3: "aorta", 1: "liver"}) == {1: "liver", 3: "aorta"}
    assert name_classes({3: "aorta", 1: "liver"}, ["a", "b", "c"]) == {1: "a", 3: "c"}


def test_names_of_the_data_set_of_the_label(tmp_path):
    supports = _label(tmp_path, **{"1": "liver", "2": "spleen", "7": "heart"})
    assert name_classes([1, 2, 3], None, supports) == {1: "liver", 2: "spleen", 3: "class 3"}


def test_names_of_a_dicom_label(tmp_path):
    files = write_series(tmp_path / "series", made_pixels())
    labels = np.zeros((12, 10, 6), np.uint8)
    labels[2:4, 2:4, 2] = 1
    labels[5:7, 2:4, 2] = 2
    seg = write_seg(tmp_path / "seg.dcm", files, labels, ["Liver", "Left kidney"])
    assert name_classes([1, 2], None, [{"name": "a", "image": "", "label": str(seg)}]) == {1: "Liver", 2: "Left kidney"}
    contours = {"Spleen": [np.array([[-48.0, -38, 103], [-45, -38, 103], [-45, -35, 103]])]}
    rtstruct = write_rtstruct(tmp_path / "contours.dcm", files, contours)
    assert name_classes([1], None, [{"name": "a", "image": "", "label": str(rtstruct)}]) == {1: "Spleen"}


def test_classes_without_names(tmp_path):
    assert name_classes([1, 2]) == {1: "class 1", 2: "class 2"}
    assert name_classes([4, 2], None, _label(tmp_path)) == {2: "class 2", 4: "class 4"}


@pytest.mark.parametrize("names", [["liver"], "liver and spleen", []])
def test_too_few_names(names):
    with pytest.raises(ValueError, match=r"class_names are .*, but the masks hold the classes \[1, 2\]: give 2 name"):
        name_classes([1, 2], names)
