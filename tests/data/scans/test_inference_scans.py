# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging

import nibabel
import numpy as np
import pytest
from dicom_files import write_seg, write_series
from PIL import Image

from monai_fewshot.data import LoadScand, pending_scans, support_scans
from monai_fewshot.data.dicom.series import series_name


def _save(file, seed=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 200, (20, 20, 5)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), file)
    return str(file)


def test_one_support(tmp_path):
    image, label = _save(tmp_path / "case 1.nii.gz"), _save(tmp_path / "organs.nii")
    assert support_scans(image, label) == [{"name": "case 1", "image": image, "label": label}]


def test_several_supports_keep_their_order(tmp_path):
    images = [_save(tmp_path / "images" / f"{name}.nii.gz") for name in "cab"]
    labels = [_save(tmp_path / "labels" / f"{name}.nii.gz") for name in "cab"]
    scans = support_scans(images, labels)
    assert [scan["name"] for scan in scans] == ["c", "a", "b"]
    assert [scan["label"] for scan in scans] == labels


def test_a_folder_with_one_image_serves(tmp_path):
    image, label = _save(tmp_path / "one" / "x.nii.gz"), _save(tmp_path / "label.nii.gz")
    assert support_scans(tmp_path / "one", label)[0]["image"] == image


def test_as_many_labels_as_images(tmp_path):
    image, label = _save(tmp_path / "a.nii.gz"), _save(tmp_path / "label.nii.gz")
    with pytest.raises(ValueError, match=r"2 support image\(s\) and 1 support label\(s\): give one label for each"):
        support_scans([image, image], label)


def test_missing_support(tmp_path):
    image = _save(tmp_path / "a.nii.gz")
    with pytest.raises(FileNotFoundError, match=r"label\.nii\.gz does not exist"):
        support_scans(image, tmp_path / "label.nii.gz")
    with pytest.raises(FileNotFoundError, match=r"b\.nii\.gz does not exist"):
        support_scans(tmp_path / "b.nii.gz", image)


def test_a_folder_of_many_images_is_not_one_support(tmp_path):
    for name in "abc":
        _save(tmp_path / "images" / f"{name}.nii.gz")
    label = _save(tmp_path / "label.nii.gz")
    with pytest.raises(ValueError, match=r"images holds 3 scans \(a, b, c\); .*name one"):
        support_scans(tmp_path / "images", label)


def test_support_of_dicom(tmp_path):
    files = write_series(tmp_path / "Quxworth", series_uid="1.1")
    other = write_series(tmp_path / "Quxworth", series_uid="1.2", file_name="B{}")
    seg = write_seg(tmp_path / "seg" / "x", files, np.ones((12, 10, 6), int), ["liver"])
    (scan,) = support_scans(tmp_path / "Quxworth", seg, series_uid="1.1")
    assert scan == {"name": series_name("1.1"), "image": tuple(map(str, files)), "label": str(seg)}
    (scan,) = support_scans(tmp_path / "Quxworth", tmp_path / "seg", series_uid=series_name("1.2"))
    assert scan == {"name": series_name("1.2"), "image": tuple(map(str, other)), "label": str(tmp_path / "seg")}
    with pytest.raises(ValueError, match=r"holds 2 scans \(series_\w{12}, series_\w{12}\); .*name one of them"):
        support_scans(tmp_path / "Quxworth", seg)
    nifti = _save(tmp_path / "a.nii.gz")
    assert support_scans(nifti, nifti, series_uid="1.1")[0]["image"] == nifti


def test_supports_agree_on_regions(tmp_path):
    series, labels = [tmp_path / name for name in "ab"], np.ones((12, 10, 6), int)
    labels[:3] = 2
    segs = [
        write_seg(tmp_path / f"{folder.name}.dcm", write_series(folder), labels, names)
        for folder, names in zip(series, (["liver", "spleen"], ["spleen", "liver"]), strict=True)
    ]
    assert len(support_scans([series[0]] * 2, [segs[0]] * 2)) == 2
    message = r"regions \(.*a\.dcm: liver, spleen; .*b\.dcm: spleen, liver\): name those to segment, class_names"
    with pytest.raises(ValueError, match=message):
        support_scans(series, segs)
    scans = support_scans(series, segs, class_names=["liver", "spleen"])
    loaded = [LoadScand(class_names=["liver", "spleen"])(scan)["label"][0].numpy() for scan in scans]
    np.testing.assert_array_equal(loaded[0], labels)
    np.testing.assert_array_equal(loaded[1], 3 - labels)


def test_finished_scans_are_passed_over(tmp_path, caplog):
    scans = [{"name": name, "image": f"{name}.nii.gz"} for name in "abc"]
    _save(tmp_path / "b_seg.nii.gz")
    _save(tmp_path / "a_other.nii.gz")
    with caplog.at_level(logging.INFO):
        assert [scan["name"] for scan in pending_scans(scans, tmp_path)] == ["a", "c"]
    assert f"1 of 3 scans have a mask in {tmp_path} already" in caplog.text
    assert [scan["name"] for scan in pending_scans(scans, tmp_path, postfix="other")] == ["b", "c"]
    assert pending_scans(scans, tmp_path, overwrite=True) == scans
    assert pending_scans(scans, tmp_path / "not there") == scans


@pytest.mark.parametrize("keep", [0, 5, 100, -30, -4])
def test_a_truncated_mask_is_made_again(tmp_path, keep):
    scans = [{"name": "a", "image": "a.nii.gz"}]
    file = tmp_path / "a_seg.nii.gz"
    _save(file)
    assert pending_scans(scans, tmp_path) == []
    file.write_bytes(file.read_bytes()[:keep])
    assert pending_scans(scans, tmp_path) == scans


@pytest.mark.parametrize("place", [0, 15, 60, 300, 1000])
def test_a_damaged_mask_is_made_again(tmp_path, place):
    file = tmp_path / "a_seg.nii.gz"
    _save(file)
    content = bytearray(file.read_bytes())
    content[place : place + 200] = bytes(200)
    file.write_bytes(content)
    assert len(pending_scans([{"name": "a", "image": "a.nii.gz"}], tmp_path)) == 1


def _save_png(file):
    Image.fromarray(np.random.default_rng(0).integers(0, 2, (40, 30), np.uint8) * 255).save(file)


def test_finished_images_are_passed_over(tmp_path):
    images = [{"name": name, "image": f"{name}.jpg"} for name in "abc"]
    _save_png(tmp_path / "b_seg.png")
    _save(tmp_path / "c_seg.nii.gz")
    assert [image["name"] for image in pending_scans(images, tmp_path, extension=".png")] == ["a", "c"]
    assert pending_scans(images, tmp_path, overwrite=True, extension=".png") == images
    assert [image["name"] for image in pending_scans(images, tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("keep", [0, 5, 60, -60])
def test_a_truncated_png_is_made_again(tmp_path, keep):
    images = [{"name": "a", "image": "a.jpg"}]
    file = tmp_path / "a_seg.png"
    _save_png(file)
    assert pending_scans(images, tmp_path, extension=".png") == []
    file.write_bytes(file.read_bytes()[:keep])
    assert pending_scans(images, tmp_path, extension=".png") == images
