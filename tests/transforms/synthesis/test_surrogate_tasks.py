# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import stats

from monai_fewshot.transforms import Denoising, Inpainting, LocalShuffling, SurrogateTaskd

TASKS = [Denoising, Inpainting, LocalShuffling]
SEEDS = torch.tensor([11, 12, 13])


def _images(batch=3, size=(50, 44)):
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("task", TASKS)
def test_a_corruption_is_a_function_of_its_seed(task):
    images = _images()
    out = task().corrupt(images, SEEDS)
    assert out.shape == images.shape
    for number in range(3):
        one = task().corrupt(images[number : number + 1], SEEDS[number : number + 1])
        torch.testing.assert_close(one[0], out[number], atol=1e-6, rtol=0)
    other = task().corrupt(images, SEEDS + 1)
    assert all((other[n] - out[n]).abs().max() > 0.05 for n in range(3))
    assert all((images[n] - out[n]).abs().max() > 0.05 for n in range(3))


@pytest.mark.parametrize("task", TASKS)
def test_images_are_not_changed_in_place(task):
    images = _images()
    before = images.clone()
    task().corrupt(images, SEEDS)
    assert torch.equal(images, before)


def test_noise_is_gaussian_of_the_strength_asked_for():
    images = torch.full((3, 3, 100, 100), 0.5)
    noise = (Denoising(0.3).corrupt(images, SEEDS) - images).flatten()
    assert noise.mean().item() == pytest.approx(0, abs=0.005)
    assert noise.std().item() == pytest.approx(0.3, rel=0.01)
    assert stats.kstest(noise[::7].numpy() / 0.3, "norm").pvalue > 0.01


def test_patches_take_the_mean_color_and_nothing_else_changes():
    images = _images()
    task = Inpainting(4, (0.2, 0.4))
    out = task.corrupt(images, SEEDS)
    covered = (out != images).any(1)
    mean = images.mean((2, 3))
    for number in range(3):
        colors = out[number][:, covered[number]]
        torch.testing.assert_close(colors, mean[number][:, None].expand_as(colors))
        assert 0.04 * 0.9 <= covered[number].float().mean() <= 4 * 0.16 * 1.2


def test_one_patch_is_a_rectangle_of_the_sides_asked_for():
    images = _images(30, (100, 60))
    out = Inpainting(1, (0.2, 0.5)).corrupt(images, torch.arange(30))
    for changed in (out != images).any(1):
        rows, columns = changed.any(1).sum(), changed.any(0).sum()
        assert changed.sum() == rows * columns
        assert 19 <= rows <= 51
        assert 11 <= columns <= 31


def test_windows_keep_their_pixels_with_all_channels():
    images = _images(size=(48, 40))
    out = LocalShuffling(8, 1.0).corrupt(images, SEEDS)
    moved = 0
    for top in range(0, 48, 8):
        for left in range(0, 40, 8):
            before, after = (x[:, :, top : top + 8, left : left + 8].flatten(2) for x in (images, out))
            for number in range(3):
                pixels = {tuple(p) for p in before[number].T.tolist()}
                assert {tuple(p) for p in after[number].T.tolist()} == pixels
                moved += int((before[number] != after[number]).any(0).sum())
    assert moved > 0.95 * 3 * 48 * 40


def test_so_many_windows_are_shuffled_and_the_rest_stays():
    images = _images(20, (66, 70))
    out = LocalShuffling(8, 0.4).corrupt(images, torch.arange(20))
    changed = (out != images).any(1)
    cells = changed[:, :64, :64].unflatten(2, (8, 8)).unflatten(1, (8, 8)).any(4).any(2)
    assert cells.float().mean().item() == pytest.approx(0.4, abs=0.04)
    assert not changed[:, 64:].any()
    assert not changed[:, :, 64:].any()


@pytest.mark.parametrize("task", TASKS)
def test_array_and_dictionary_forms_do_the_same(task):
    image = _images(1)[0]
    out = SurrogateTaskd("image", task()).set_random_state(4)({"image": MetaTensor(image), "name": "x"})
    expected = task().set_random_state(4)(image)
    assert isinstance(out["surrogate_image"], MetaTensor)
    assert torch.equal(out["surrogate_image"].as_tensor(), expected)
    assert torch.equal(out["image"].as_tensor(), image)
    array = task().set_random_state(4)(image.numpy())
    assert isinstance(array, np.ndarray)
    assert np.array_equal(array, expected.numpy())


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="std must be positive, got 0"):
        Denoising(0)
    with pytest.raises(ValueError, match="num_patches must be positive and side a range within 0 to 1"):
        Inpainting(3, (0.5, 0.2))
    with pytest.raises(ValueError, match="window must be 2 or more and share above 0"):
        LocalShuffling(1)
    with pytest.raises(ValueError, match="Windows of 64 pixels do not fit into images"):
        LocalShuffling(64).corrupt(_images(), SEEDS)
