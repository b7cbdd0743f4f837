# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itk
import nibabel
import numpy as np
import pytest
import torch
from dicom_files import made_pixels, write_enhanced, write_series
from PIL import Image

from monai_fewshot.data import VolumePreparation, load_scans, scan_axes
from monai_fewshot.data.slices.slice_estimate import SliceEstimate, Slices, estimate_slices

SIZE = (20, 30, 7)
AFFINES = {"axial": np.diag([1.0, 1.2, 5, 1]), "sagittal": np.array([[0.0, 0, 5, 1], [1, 0, 0, 2], [0, -1.2, 0, 3]])}


def _write(folder, kind, affine=AFFINES["axial"]):
    """Write a scan of random voxels, and list it."""
    voxels = np.random.default_rng(0).integers(0, 99, SIZE).astype(np.int16)
    if kind == "dicom":
        write_series(folder, made_pixels(SIZE))
    elif kind == "multi-frame":
        frames = [lambda index: {"MREchoSequence": {"EffectiveEchoTime": 4.6}}]
        write_enhanced(folder / "a.dcm", [made_pixels(SIZE)], frames)
    elif kind.startswith("nii"):
        nibabel.save(nibabel.Nifti1Image(voxels, np.vstack([affine[:3], [0, 0, 0, 1]])), folder / f"a.{kind}")
    elif kind in ("png", "jpg"):
        Image.fromarray(np.tile(voxels[..., 0, None], 3 if kind == "jpg" else 1).squeeze().astype(np.uint8)).save(
            folder / f"a.{kind}"
        )
    else:
        image = itk.image_from_array(voxels.T.copy())
        image.SetSpacing([1.0, 1.2, 5.0])
        itk.imwrite(image, folder / f"a.{kind}")
    return load_scans(folder)


@pytest.mark.parametrize("kind", ["nii", "nii.gz", "nrrd", "mha", "dicom", "multi-frame", "png", "jpg"])
def test_what_headers_tell_is_what_is_read(tmp_path, kind):
    scans = _write(tmp_path, kind)
    transform = VolumePreparation(axes=scan_axes(scans[0]), channels=3 if kind == "jpg" else 1).transform()
    channels, height, width, depth = transform(scans[0])["image"].shape
    assert estimate_slices(scans, transform).scans == (Slices(depth, height * width, channels),)


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd", "mha"])
@pytest.mark.parametrize("directions", [np.eye(3), np.eye(3)[[1, 2, 0]], np.eye(3)[[2, 0, 1]]], ids=str)
def test_slices_are_counted_along_the_axis_that_is_cut(tmp_path, kind, directions):
    scans = _write(tmp_path, kind, AFFINES["sagittal"])
    transform = VolumePreparation(axes=directions.tolist()).transform()
    image = transform(scans[0])["image"]
    assert estimate_slices(scans, transform).scans == (Slices(image.shape[3], image[0, ..., 0].numel(), 1),)


def test_scans_whose_headers_do_not_tell_are_taken_for_average_ones(tmp_path):
    (tmp_path / "damaged.nii.gz").write_bytes(b"x")
    scans = [{"image": torch.zeros(1, 8, 4, 6)}, {"image": str(tmp_path / "damaged.nii.gz")}, {"image": "a.xyz"}]
    estimate = estimate_slices(scans)
    assert estimate.scans == (Slices(6, 32, 1), None, None)
    assert estimate.num_slices() == 18
    assert estimate.num_bytes() == 18 * 32 * 4
    assert estimate.num_bytes([10, 10]) == 18 * 100 * 4
    assert estimate_slices(scans[1:]).num_slices() is None
    assert estimate_slices([]).num_bytes() is None


def test_colors_take_more():
    assert SliceEstimate((Slices(1, 50, 3),)).num_bytes() == 50 * (3 * 2 + 2)


def test_as_many_scans_are_drawn_as_have_room():
    estimate = SliceEstimate(tuple(Slices(number, 1, 1) for number in (30, 40, 20, 50)))
    for seed in range(20):
        drawn = estimate.drawn(90, seed)
        sizes = [(30, 40, 20, 50)[index] for index in drawn]
        assert drawn == sorted(drawn)
        assert sum(sizes) <= 90
        assert all(sum(sizes) + size > 90 for index, size in enumerate((30, 40, 20, 50)) if index not in drawn)
    assert estimate.drawn(140) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="max_slices is 19, but whole scans are drawn, and the smallest has 20 slices"):
        estimate.drawn(19)
    with pytest.raises(ValueError, match="the headers of 1 of 2 scans do not tell how many slices they have"):
        SliceEstimate((Slices(3, 1, 1), None)).drawn(10)
