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


@pytest.mark.parametrize("options", [{}, {"bias": 0.5, "noise": 0.3}])
def test_a_batch_is_its_images_one_by_one(options):
    variation, random, images = IntensityVariation(**options), np.random.RandomState(0), _images(5)
    draws = [variation.draw(random, SIZE) for _ in range(5)]
    out = variation.apply(images, draws)
    for image, draw, changed in zip(images, draws, out, strict=True):
        torch.testing.assert_close(variation.apply(image[None], [draw])[0], changed, atol=1e-4, rtol=0)


def test_draws_come_as_often_and_as_wide_as_asked():
    variation = IntensityVariation(0.3, 0.5, (0.5, 2.0), blur_prob=0.4, blur_sigma=(0.5, 2.0))
    random = np.random.RandomState(0)
    gain, shift, gamma, sigma, *others = np.array([variation.draw(random, (64, 128)) for _ in range(3000)]).T
    np.testing.assert_allclose([gain.min(), gain.max(), shift.min(), shift.max()], [0.7, 1.3, -0.5, 0.5], atol=0.01)
    np.testing.assert_allclose([gamma.min(), gamma.max()], [0.5, 2.0], atol=0.01)
    assert (sigma > 0).mean() == pytest.approx(0.4, abs=0.04)
    np.testing.assert_allclose([sigma[sigma > 0].min(), sigma.max()], [0.25, 1.0], atol=0.01)
    assert not np.any(others)


def test_bias_and_noise_are_drawn_as_wide_as_asked_and_each_with_its_seed():
    variation, random = IntensityVariation(bias=0.4, noise=0.2), np.random.RandomState(0)
    draws = [variation.draw(random, SIZE) for _ in range(3000)]
    for values, highest in (([draw.bias for draw in draws], 0.4), ([draw.noise for draw in draws], 0.2)):
        np.testing.assert_allclose([min(values), max(values)], [0, highest], atol=0.001)
        assert np.mean(values) == pytest.approx(highest / 2, rel=0.05)
    assert len({draw.noise_seed for draw in draws}) == len(draws)


def test_other_draws_are_as_without_bias_and_noise():
    plain, more = (IntensityVariation(**options) for options in ({}, {"bias": 0.4, "noise": 0.2}))
    one, other = (variation.draw(np.random.RandomState(0), SIZE) for variation in (plain, more))
    assert one[:4] == other[:4]


@pytest.mark.parametrize("size", [0.05, 0.5])
def test_noise_has_the_stated_size_and_is_of_the_pixels(size):
    variation, image = IntensityVariation(noise=1.0), 40 * torch.randn(4, 2, 64, 64) + 7
    added = variation.apply(image, [IntensityDraw(noise=size, noise_seed=seed) for seed in range(4)]) - image
    relative = added / image.std((2, 3), keepdim=True)
    np.testing.assert_allclose(relative.std((2, 3)), size, rtol=0.04)
    np.testing.assert_allclose(relative.mean((2, 3)), 0, atol=0.04 * size * 3**0.5)
    each, moved = relative.flatten(0, 1).flatten(1), relative.roll(1, 3)[:, 0].flatten(1)
    correlations = np.corrcoef(np.concatenate([each, moved]))
    assert np.abs(correlations - np.eye(len(correlations))).max() < 0.1


def test_bias_is_a_smooth_factor_of_the_distance_from_the_minimum_alike_in_all_channels():
    variation, images = IntensityVariation(bias=1.0), _images()
    strengths = {}
    for strength in (0.2, 0.4):
        out = variation.apply(images, [IntensityDraw(bias=strength, noise_seed=5)])
        low = images.amin((2, 3), keepdim=True)
        inside = (images > low).all(1)[0]
        field = (((out - low) / (images - low)).log() / strength)[0]
        strengths[strength] = field[:, inside]
        np.testing.assert_allclose(field[0][inside], field[1][inside], atol=2e-3)
        assert field[:, inside].abs().max() <= 1 + 1e-3
        smooth = field[0].where(inside, torch.zeros(()))
        both = inside[:, 1:] & inside[:, :-1]
        assert (smooth[:, 1:] - smooth[:, :-1])[both].abs().max() < 0.35
        assert field[0][inside].std() > 0.1
    np.testing.assert_allclose(strengths[0.2], strengths[0.4], atol=2e-3)


def test_the_unit_does_not_matter_to_bias_and_noise_either():
    variation, draw = IntensityVariation(bias=1.0, noise=1.0), IntensityDraw(bias=0.3, noise=0.2, noise_seed=9)
    one, other = (variation.apply(image, [draw]) for image in (_images(), 100 * _images() - 7))
    torch.testing.assert_close(other, 100 * one - 7, atol=1e-2, rtol=1e-4)
    flat = torch.full((1, 1, *SIZE), 3.0)
    torch.testing.assert_close(variation.apply(flat, [draw]), flat)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gain": 1.0}, "gain must lie from 0 to below 1"),
        ({"shift": -0.1}, "shift, bias and noise must not be negative"),
        ({"bias": -0.1}, "got 0.3, 0.3, -0.1, 0.0 and 0.5"),
        ({"noise": -0.1}, "got 0.3, 0.3, 0.0, -0.1 and 0.5"),
        ({"blur_prob": 1.1}, "blur_prob must lie from 0 to 1"),
        ({"gamma": (0.0, 1.0)}, "ranges of positive numbers"),
        ({"blur_sigma": (2.0, 1.0)}, "low first"),
    ],
)
def test_bad_ranges(options, message):
    with pytest.raises(ValueError, match=message):
        IntensityVariation(**options)
