# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage
from skimage.color import rgb2yiq

from monai_fewshot.transforms import ColorDraw, EpisodeAugmentation, RandColorJitter, RandColorJitterd

SIZE = (24, 32)


def _image(seed=0, channels=3, low=0.3, high=0.7):
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(channels, *SIZE, generator=generator)


def _apply(image, **draw):
    return RandColorJitter().apply(image[None], [ColorDraw(**draw)])[0]


def test_the_draw_of_no_change_changes_nothing():
    torch.testing.assert_close(_apply(_image()), _image(), atol=1e-6, rtol=0)


def test_brightness_and_contrast_by_hand():
    image = _image()
    torch.testing.assert_close(_apply(image, brightness=1.2), 1.2 * image, atol=1e-5, rtol=0)
    mean = 1.2 * float((torch.tensor([0.299, 0.587, 0.114]) @ image.flatten(1)).mean())
    expected = mean + 0.7 * (1.2 * image - mean)
    torch.testing.assert_close(_apply(image, brightness=1.2, contrast=0.7), expected, atol=1e-5, rtol=0)


def test_saturation_and_hue_act_in_yiq():
    image = _image()
    out = _apply(image, saturation=0.6, hue=0.1)
    before, after = (rgb2yiq(x.numpy(), channel_axis=0) for x in (image, out))
    np.testing.assert_allclose(after[0], before[0], atol=1e-4)
    chroma = (before[1] + 1j * before[2]) * 0.6 * np.exp(2j * np.pi * 0.1)
    np.testing.assert_allclose(after[1] + 1j * after[2], chroma, atol=1e-4)


def test_a_third_of_a_turn_takes_a_color_to_the_next():
    red = torch.tensor([0.55, 0.45, 0.45]).view(3, 1, 1).expand(-1, *SIZE).contiguous()
    before, after = (colorsys.rgb_to_hsv(*x[:, 0, 0].tolist())[0] for x in (red, _apply(red, hue=1 / 3)))
    assert min((after - before) % 1, (before - after) % 1) == pytest.approx(1 / 3, abs=0.05)


def test_no_saturation_is_the_luminance():
    image = _image()
    gray = torch.tensordot(torch.tensor([0.299, 0.587, 0.114]), image, 1)
    torch.testing.assert_close(_apply(image, saturation=0.0, hue=0.2), gray.expand(3, -1, -1), atol=1e-5, rtol=0)


def test_each_image_has_its_own_blur():
    images = torch.stack([_image(seed) for seed in range(3)])
    out = RandColorJitter().apply(images, [ColorDraw(blur_sigma=2.5), ColorDraw(), ColorDraw(blur_sigma=1.0)])
    torch.testing.assert_close(out[1], images[1], atol=1e-6, rtol=0)
    for index, sigma in ((0, 2.5), (2, 1.0)):
        # A pixel of the kernel is an integral over its width, which widens a sampled kernel by that of a pixel.
        wide = np.sqrt(sigma**2 + 1 / 12)
        expected = ndimage.gaussian_filter(images[index].numpy(), (0, wide, wide), mode="nearest")
        np.testing.assert_allclose(out[index], expected, atol=3e-3)
        assert np.abs(images[index].numpy() - expected).mean() > 0.05


def test_a_batch_equals_its_images_one_by_one():
    transform, random = RandColorJitter(), np.random.RandomState(0)
    images = torch.stack([_image(seed, low=0.0, high=1.0) for seed in range(6)])
    draws = [transform.draw(random, SIZE) for _ in images]
    out = transform.apply(images, draws)
    assert 0 <= out.min() <= out.max() <= 1
    for image, draw, changed in zip(images, draws, out, strict=True):
        torch.testing.assert_close(transform.apply(image[None], [draw])[0], changed, atol=1e-5, rtol=0)


def test_draws_come_as_often_and_as_wide_as_asked():
    transform = RandColorJitter(0.4, 0.3, 0.2, 0.1, gray_prob=0.4, blur_prob=0.5, blur_sigma=(0.5, 2.0), prob=0.8)
    random = np.random.RandomState(0)
    draws = np.array([transform.draw(random, (64, 128)) for _ in range(4000)])
    gray = draws[:, 2] == 0
    assert gray.mean() == pytest.approx(0.4, abs=0.03)
    assert (draws[:, 0] != 1).mean() == pytest.approx(0.8, abs=0.03)
    changes = draws[:, [0, 1, 3]] - [1, 1, 0]
    np.testing.assert_allclose(np.abs(changes).max(0), [0.4, 0.3, 0.1], rtol=0.02)
    assert np.abs(draws[~gray, 2] - 1).max() == pytest.approx(0.2, rel=0.02)
    blurred = draws[:, 4] > 0
    assert blurred.mean() == pytest.approx(0.5, abs=0.03)
    assert (draws[blurred, 4].min(), draws[blurred, 4].max()) == pytest.approx((0.25, 1.0), rel=0.02)


def test_gray_images_keep_their_one_channel():
    image = _image(channels=1)
    out = _apply(image, brightness=1.1, contrast=0.8, saturation=0.0, hue=0.3)
    mean = 1.1 * float(image.mean())
    torch.testing.assert_close(out, mean + 0.8 * (1.1 * image - mean), atol=1e-5, rtol=0)


def test_the_dictionary_form_treats_its_images_alike_and_keeps_their_type():
    images = {"a": _image(0), "b": MetaTensor(_image(1)), "c": _image(2).numpy(), "name": "x"}
    transform = RandColorJitterd(["a", "b", "c"]).set_random_state(3)
    out = transform(images)
    assert out["name"] == "x"
    assert (type(out["b"]), type(out["c"])) == (MetaTensor, np.ndarray)
    draw = RandColorJitter().draw(np.random.RandomState(3), SIZE)
    for key in "abc":
        expected = RandColorJitter().apply(torch.as_tensor(np.asarray(images[key]))[None], [draw])[0]
        np.testing.assert_allclose(np.asarray(out[key]), expected, atol=1e-6)


def test_absent_keys():
    assert RandColorJitterd("a", allow_missing_keys=True)({"b": 1}) == {"b": 1}
    with pytest.raises(KeyError):
        RandColorJitterd("a")({"b": 1})


def test_episodes_take_the_colors_of_their_draws():
    augmentation = EpisodeAugmentation(geometry=None, gamma=None, color=RandColorJitter())
    draws = [augmentation.draw(np.random.RandomState(seed), SIZE) for seed in range(3)]
    images, labels = torch.stack([_image(seed) for seed in range(3)]), torch.ones(3, 1, *SIZE)
    out, same = augmentation(images, labels, draws)
    assert torch.equal(same, labels)
    assert torch.equal(out, RandColorJitter().apply(images, [draw.color for draw in draws]))
    assert (out - images).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"brightness": 1.0}, "from 0 to below 1"),
        ({"hue": 0.6}, "hue from 0 to 0.5"),
        ({"blur_sigma": (2.0, 1.0)}, "range of positive numbers"),
    ],
)
def test_bad_ranges(options, message):
    with pytest.raises(ValueError, match=message):
        RandColorJitter(**options)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"with 1 or 3 channels, got \(1, 2, 24, 32\)"):
        _apply(_image(channels=2))
