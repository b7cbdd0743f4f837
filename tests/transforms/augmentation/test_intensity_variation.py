# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_fewshot.transforms import IntensityDraw, IntensityVariation

SIZE = (24, 32)


def _images(number=1, channels=2, seed=0):
    return 5 + 3 * torch.randn(number, channels, *SIZE, generator=torch.Generator().manual_seed(seed))


def _apply(image, **draw):
    return IntensityVariation().apply(image, [IntensityDraw(**draw)])


def test_the_draw_of_no_change_changes_nothing():
    torch.testing.assert_close(_apply(_images()), _images(), atol=1e-5, rtol=0)


def test_gamma_gain_and_shift_by_hand():
    out = _apply(_images(), gain=1.2, shift=-0.4, gamma=0.7)
    for channel, result in zip(_images()[0].double().numpy(), out[0].numpy(), strict=True):
        low, high = channel.min(), channel.max()
        expected = ((channel - low) / (high - low)) ** 0.7 * (high - low) + low
        expected = (expected - expected.mean()) * 1.2 + expected.mean() - 0.4 * expected.std()
        np.testing.assert_allclose(result, expected, atol=1e-4)


def test_blur_is_gaussian():
    out = _apply(_images(), blur_sigma=1.5)
    wide = np.sqrt(1.5**2 + 1 / 12)  # a pixel of the kernel is an integral over its width
    expected = ndimage.gaussian_filter(_images().numpy(), (0, 0, wide, wide), mode="nearest")
    np.testing.assert_allclose(out, expected, atol=0.03)
    assert np.abs(_images().numpy() - expected).mean() > 1


def test_the_unit_of_intensities_does_not_matter():
    draw = {"gain": 1.3, "shift": 0.2, "gamma": 1.4, "blur_sigma": 0.8}
    torch.testing.assert_close(
        _apply(100 * _images() - 7, **draw), 100 * _apply(_images(), **draw) - 7, atol=1e-2, rtol=0
    )


def test_an_image_of_one_value_stays():
    flat = torch.full((1, 1, *SIZE), 3.0)
    torch.testing.assert_close(_apply(flat, gain=1.3, shift=0.5, gamma=0.7, blur_sigma=1.0), flat)


def test_a_batch_is_its_images_one_by_one():
    variation, random, images = IntensityVariation(), np.random.RandomState(0), _images(5)
    draws = [variation.draw(random, SIZE) for _ in range(5)]
    out = variation.apply(images, draws)
    for image, draw, changed in zip(images, draws, out, strict=True):
        torch.testing.assert_close(variation.apply(image[None], [draw])[0], changed, atol=1e-4, rtol=0)


def test_draws_come_as_often_and_as_wide_as_asked():
    variation = IntensityVariation(0.3, 0.5, (0.5, 2.0), blur_prob=0.4, blur_sigma=(0.5, 2.0))
    random = np.random.RandomState(0)
    gain, shift, gamma, sigma = np.array([variation.draw(random, (64, 128)) for _ in range(3000)]).T
    np.testing.assert_allclose([gain.min(), gain.max(), shift.min(), shift.max()], [0.7, 1.3, -0.5, 0.5], atol=0.01)
    np.testing.assert_allclose([gamma.min(), gamma.max()], [0.5, 2.0], atol=0.01)
    assert (sigma > 0).mean() == pytest.approx(0.4, abs=0.04)
    np.testing.assert_allclose([sigma[sigma > 0].min(), sigma.max()], [0.25, 1.0], atol=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gain": 1.0}, "gain must lie from 0 to below 1"),
        ({"shift": -0.1}, "shift must not be negative"),
        ({"blur_prob": 1.1}, "blur_prob must lie from 0 to 1"),
        ({"gamma": (0.0, 1.0)}, "ranges of positive numbers"),
        ({"blur_sigma": (2.0, 1.0)}, "low first"),
    ],
)
def test_bad_ranges(options, message):
    with pytest.raises(ValueError, match=message):
        IntensityVariation(**options)
