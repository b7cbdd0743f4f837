# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage

from monai_fewshot.transforms import BodyMask, BodyMaskd


def slice_with_parts() -> np.ndarray:
    """A ring of 100 with a dark hole, and a smaller bright square that is no part of it."""
    image = np.zeros((20, 20), np.float32)
    image[2:12, 2:12] = 100
    image[5:9, 5:9] = 10
    image[15:18, 15:18] = 200
    return image


def test_largest_component_with_its_holes_filled():
    expected = np.zeros((20, 20), np.uint8)
    expected[2:12, 2:12] = 1
    mask = BodyMask(50)(slice_with_parts()[None])
    assert mask.dtype == np.uint8
    assert (mask[0] == expected).all()


def test_slices_are_masked_one_by_one_and_dark_ones_are_empty():
    plane = slice_with_parts()
    volume = np.stack([plane, np.zeros_like(plane), plane.T, plane[::-1]], axis=-1)[None]
    mask = BodyMask(50)(volume)
    for index in range(4):
        assert (mask[..., index] == BodyMask(50)(volume[..., index])).all()
    assert not mask[..., 1].any()


def test_pixels_that_touch_at_a_corner_are_one_component():
    image = np.eye(6)[None]
    assert (BodyMask(0.5)(image) == image).all()


def test_minus_infinity_takes_the_whole_image():
    assert BodyMask(-np.inf)(slice_with_parts()[None]).all()


def test_channels_are_averaged():
    image = np.stack([slice_with_parts(), np.zeros((20, 20)), np.zeros((20, 20))])
    assert BodyMask(30)(image).sum() == 100
    assert BodyMask(40)(image).sum() == 9


def noisy_body(air: float, tissue: float, organ: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:80, :80] - 39.5
    body = rows**2 + (columns / 1.3) ** 2 < 24**2
    image = np.where(body, tissue, air)
    image[30:45, 30:50] = organ
    image = image + noise * rng.standard_normal(image.shape)
    return image[None], body


@pytest.mark.parametrize(
    ("values", "scale", "shift"),
    [
        ((5, 120, 600, 3), 1, 0),  # MR
        ((5, 120, 600, 3), 0.004, -1.2),  # MR, standardized
        ((5, 120, 600, 3), 4, 0),  # MR of another scanner
        ((-1000, -90, 60, 20), 1, 0),  # CT in Hounsfield units
        ((-1000, -90, 900, 20), 1, 0),
    ],
)
def test_auto_threshold_finds_the_body_in_any_unit(values, scale, shift):
    image, body = noisy_body(*values)
    mask = BodyMask()(image * scale + shift)[0] > 0
    assert 2 * (mask & body).sum() / (mask.sum() + body.sum()) > 0.995


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0, -1000.0])
def test_constant_image_is_empty(value):
    assert not BodyMask()(np.full((1, 8, 8, 2), value)).any()


def test_dictionary_form():
    affine = torch.diag(torch.tensor([2.0, 2.0, 5.0, 1.0], dtype=torch.float64))
    image = MetaTensor(slice_with_parts()[None, ..., None], affine=affine)
    out = BodyMaskd("image", threshold=50)({"image": image})
    assert isinstance(out["body_mask"], MetaTensor)
    assert out["body_mask"].dtype == torch.uint8
    assert torch.equal(out["body_mask"].affine, affine)
    assert out["body_mask"].sum() == 100
    assert set(BodyMaskd(["a", "b"], ["c", "d"], allow_missing_keys=True)({"b": image})) == {"b", "d"}


def test_wrong_input():
    with pytest.raises(ValueError, match="threshold must be a number or 'auto', got 'triangle'"):
        BodyMask("triangle")
    with pytest.raises(ValueError, match=r"image must be a slice .* got shape \(4, 4\)"):
        BodyMask()(np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"image must be .* no empty axis, got shape \(1, 4, 0\)"):
        BodyMask()(np.zeros((1, 4, 0)))
    with pytest.raises(ValueError, match="image holds NaN or infinite values in 1 of 9 voxels"):
        BodyMask()(np.where(np.eye(3)[None, :, ::-1] * np.arange(3) == 2, np.inf, 0))
    with pytest.raises(ValueError, match="mask_key must name one new key for each"):
        BodyMaskd(["a", "b"], mask_key="mask")


@pytest.mark.parametrize(
    ("scan", "threshold"),
    [("chaos_t2/imagesTr/chaos_02", 50), ("mscmr_bssfp/imagesTr/cmr_02", 50), ("sabs_ct/imagesTr/sabs_00", 0)],
)
def test_auto_agrees_with_the_published_thresholds(data_dir, scan, threshold):
    image = LoadImage(ensure_channel_first=True)(data_dir / f"{scan}.nii.gz")
    fixed, auto = BodyMask(threshold)(image) > 0, BodyMask()(image) > 0
    assert 2 * (fixed & auto).sum() / (fixed.sum() + auto.sum()) > 0.93
