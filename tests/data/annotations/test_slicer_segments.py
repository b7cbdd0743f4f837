# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gzip
import itertools
import logging

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.utils import OptionalImportError
from scipy.spatial.transform import Rotation
from slicer_files import SPACES, write_seg_nrrd_by_hand

from monai_fewshot.data import (
    LoadScand,
    check_scans,
    load_scans,
    name_classes,
    read_segmentation,
    segmentation_names,
    support_scans,
)
from monai_fewshot.data.annotations.slicer_segments import is_slicer_segmentation, is_whole_seg_nrrd

SIZE = (9, 8, 6)
AFFINE = np.eye(4)
AFFINE[:3, :3] = Rotation.from_euler("xyz", [10, -20, 30], degrees=True).as_matrix() * [1.5, 0.8, 3.0]
AFFINE[:3, 3] = [-40.0, 25.5, 112.0]
NAMES = {1: "liver", 2: "Läsion, left"}
SEGMENTS = [("liver", 0, 1), ("Läsion, left", 0, 2)]


def _labels():
    labels = np.zeros(SIZE, np.uint8)
    labels[2:5, 3:7, 1:4] = 1
    labels[6:8, 1:4, 3:5] = 2
    return labels


def _image(affine=AFFINE):
    return MetaTensor(torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0)), affine=torch.from_numpy(affine))


def _on_extent(start, size):
    """Voxels and affine of the labels on another extent of the same grid, by a plain loop."""
    labels, voxels = _labels(), np.zeros(size, np.uint8)
    for index in itertools.product(*map(range, size)):
        there = np.add(index, start)
        if (there >= 0).all() and (there < SIZE).all():
            voxels[index] = labels[tuple(there)]
    affine = AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, :3] @ start
    return voxels, affine


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
    ("start", "size"), [((0, 0, 0), SIZE), ((2, 1, 1), (6, 6, 4)), ((-3, 0, -1), (12, 9, 9))], ids=str
)
def test_segments_on_any_extent_and_in_any_space(tmp_path, space, start, size):
    voxels, affine = _on_extent(start, size)
    path = write_seg_nrrd_by_hand(tmp_path / "a.seg.nrrd", voxels, SEGMENTS, affine, space)
    label, names = read_segmentation(path, _image())
    np.testing.assert_array_equal(label[0].numpy(), _labels())
    assert label.dtype == torch.float32
    assert torch.equal(label.affine, _image().affine)
    assert names == segmentation_names(path) == NAMES
    assert label.meta["filename_or_obj"] == str(path)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))), ids=str)
def test_axes_in_any_order_and_direction(tmp_path, axes):
    voxels, affine = _on_extent((1, 1, 0), (8, 6, 6))
    orientation = np.array([[axis, -1 if row != 1 else 1] for row, axis in enumerate(axes)])
    turned = nibabel.Nifti1Image(voxels, affine).as_reoriented(orientation)
    path = write_seg_nrrd_by_hand(tmp_path / "a.nrrd", np.asanyarray(turned.dataobj), SEGMENTS, turned.affine)
    np.testing.assert_array_equal(read_segmentation(path, _image())[0][0].numpy(), _labels())


def test_what_lies_outside_of_the_image_is_left_out(tmp_path):
    voxels, affine = _on_extent((-2, 0, 0), (12, 8, 6))
    voxels[0] = 1
    path = write_seg_nrrd_by_hand(tmp_path / "a.seg.nrrd", voxels, SEGMENTS, affine)
    np.testing.assert_array_equal(read_segmentation(path, _image())[0][0].numpy(), _labels())


@pytest.mark.parametrize("old", [False, True])
def test_layers_may_have_the_same_values(tmp_path, old):
    layers = np.stack([_labels() == 1, _labels() == 2])
    segments = [("liver", 0, 1), ("Läsion, left", 1, 1)]
    path = write_seg_nrrd_by_hand(tmp_path / "a.seg.nrrd", layers, segments, AFFINE, old=old)
    label, names = read_segmentation(path, _image())
    np.testing.assert_array_equal(label[0].numpy(), _labels())
    assert names == segmentation_names(path) == NAMES


def test_segments_keep_their_values(tmp_path):
    first = np.where(_labels() == 1, 7, 0)
    layers = np.stack([first, np.where(_labels() == 2, 3, 0), np.zeros(SIZE)])
    segments = [("liver", 0, 7), ("lesion", 1, 3), ("nothing", 2, 5)]
    path = write_seg_nrrd_by_hand(tmp_path / "a.seg.nrrd", layers, segments, AFFINE)
    label, names = read_segmentation(path, _image())
    np.testing.assert_array_equal(label[0].numpy(), np.array([0, 7, 3])[_labels()])
    assert names == {7: "liver", 3: "lesion", 5: "nothing"}


def test_overlapping_segments_take_the_smallest_as_in_dicom(tmp_path, caplog):
    body = np.full(SIZE, 2)
    path = write_seg_nrrd_by_hand(
        tmp_path / "a.seg.nrrd", [_labels() == 1, body], [("liver", 0, 1), ("body", 1, 2)], AFFINE
    )
    with caplog.at_level(logging.WARNING):
        label, _ = read_segmentation(path, _image())
    np.testing.assert_array_equal(label[0].numpy(), np.where(_labels() == 1, 1, 2))
    assert "36 voxels lie in several regions, and take the smallest of them (body and liver: 36)" in caplog.text


def test_segments_are_chosen_by_name(tmp_path):
    path = write_seg_nrrd_by_hand(tmp_path / "a.seg.nrrd", _labels(), SEGMENTS, AFFINE)
    label, names = read_segmentation(path, _image(), ["LÄSION, left"])
    np.testing.assert_array_equal(label[0].numpy(), _labels() == 2)
    assert names == {1: "Läsion, left"}


def test_a_support_brings_its_names(tmp_path):
    nibabel.save(nibabel.Nifti1Image(_image()[0].numpy(), AFFINE), tmp_path / "a.nii.gz")
    voxels, affine = _on_extent((2, 1, 1), (6, 6, 4))
    write_seg_nrrd_by_hand(tmp_path / "a.seg.nrrd", voxels, SEGMENTS, affine)
    supports = support_scans(tmp_path / "a.nii.gz", tmp_path / "a.seg.nrrd")
    check_scans(supports)
    np.testing.assert_array_equal(LoadScand()(supports[0])["label"][0].numpy(), _labels())
    np.testing.assert_array_equal(LoadScand(class_names=["Läsion, left"])(supports[0])["label"][0], _labels() == 2)
    assert name_classes([1, 2], None, supports) == NAMES
    assert [scan["name"] for scan in load_scans(tmp_path)] == ["a"], "a segmentation is no scan"


def test_a_label_map_without_segments_is_read_as_before(tmp_path):
    path = write_seg_nrrd_by_hand(tmp_path / "a.nrrd", _labels(), [], AFFINE)
    assert not is_slicer_segmentation(path)
    label, names = read_segmentation(path, _image())
    np.testing.assert_array_equal(label[0].numpy(), _labels())
    assert names == {}


def _scaled(factor):
    return AFFINE @ np.diag([*factor, 1.0])


def _shifted(by):
    affine = AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, :3] @ by
    return affine


FAULTS = {
    "other voxels": (
        {"affine": _scaled((1, 1.5, 1))},
        r"is not on the grid of its image: its voxels of 1\.5 x 1\.2 x 3 mm lie up to 3\.5 voxels beside those of the "
        r"image, of 1\.5 x 0\.8 x 3 mm\. Make the image the source geometry.*Specify geometry",
    ),
    "doubled voxels": ({"affine": _scaled((1, 1, 2))}, r"is not on the grid .* lie up to 5 voxels beside"),
    "between voxels": ({"affine": _shifted((0, 0.45, 0))}, r"is not on the grid .* lie up to 0\.45 voxels beside"),
    "slightly turned": (
        {"affine": AFFINE @ np.block([[Rotation.from_euler("z", 0.2).as_matrix(), np.zeros((3, 1))], [0, 0, 0, 1]])},
        r"is not on the grid of its image: its voxels of .* mm lie up to 1\.6 voxels beside",
    ),
    "turned": (
        {"affine": np.diag([0.5, 3.0, 1.5, 1.0])},
        r"is not on the grid of its image: its voxels of 0\.5 x 3 x 1\.5 mm lie up to \d",
    ),
    "elsewhere": ({"affine": _shifted((50, 0, 0))}, r"marks no voxel of its image: liver, Läsion, left and the image"),
    "empty": ({"layers": np.zeros((1, 1, 1))}, r"marks no voxel of its image"),
    "layer": (
        {"segments": [("liver", 2, 1)]},
        r"says that its segment liver has the value 1 in layer 2 of 1 \(from 0\); save it in 3D Slicer again",
    ),
    "value": ({"segments": [("liver", 0, "one")]}, r"says that its segment liver has the value one in layer 0 of 1"),
    "fractional": (
        {"Segmentation_SourceRepresentation": "Fractional labelmap"},
        r"stores its segments as Fractional labelmap; save them in 3D Slicer as Binary labelmap\.",
    ),
}


@pytest.mark.parametrize(("settings", "pattern"), FAULTS.values(), ids=FAULTS)
def test_fault(tmp_path, settings, pattern):
    file = {"layers": _labels(), "segments": SEGMENTS, "affine": AFFINE, **settings}
    path = write_seg_nrrd_by_hand(tmp_path / "a.seg.nrrd", **file)
    with pytest.raises(ValueError, match=f"^{pattern}"):
        read_segmentation(path, _image())


def test_damaged_files(tmp_path):
    path = write_seg_nrrd_by_hand(tmp_path / "a.seg.nrrd", _labels(), SEGMENTS, AFFINE)
    assert is_whole_seg_nrrd(path)
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    with pytest.raises(ValueError, match=r"^is truncated or damaged: its gzip stream is not whole"):
        read_segmentation(path, _image())
    for damaged in (content[:-30], content[:200], b"", b"NRRD0004\n", gzip.compress(content)):
        path.write_bytes(damaged)
        assert not is_whole_seg_nrrd(path)
    assert not is_whole_seg_nrrd(tmp_path / "missing.seg.nrrd")


def test_simpleitk_is_needed(tmp_path, monkeypatch):
    path = write_seg_nrrd_by_hand(tmp_path / "a.seg.nrrd", _labels(), SEGMENTS, AFFINE)
    monkeypatch.setattr("monai_fewshot.data.annotations.slicer_segments.has_sitk", False)
    with pytest.raises(OptionalImportError, match=r"needs SimpleITK: pip install monai_fewshot\[slicer\]"):
        read_segmentation(path, _image())
