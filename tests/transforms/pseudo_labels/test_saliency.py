# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from monai_fewshot.transforms import (
    SaliencyLabels,
    SaliencyLabelsd,
    SaliencyMap,
    SaliencyMapd,
    boundary_saliency,
    clean_saliency,
    field_of_view,
    spectral_residual_saliency,
)
from monai_fewshot.transforms.pseudo_labels.boundary_saliency import optimized_saliency, region_distances


def _disc(size=(64, 80), center=(30, 44), radius=14):
    rows, columns = np.indices(size)
    return np.hypot(rows - center[0], columns - center[1]) < radius


def _image(inside, outside, mask=None, noise=0.03, seed=0):
    mask = _disc() if mask is None else mask
    random = np.random.default_rng(seed)
    colors = np.where(mask, np.reshape(inside, (3, 1, 1)), np.reshape(outside, (3, 1, 1)))
    return np.clip(colors + random.normal(0, noise, colors.shape), 0, 1)


def _iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_spectral_residual_agrees_with_its_formula():
    image = 1 + np.random.default_rng(0).random((1, 32, 32))
    image[0, 16, 16] = 0.0
    scaled = (image[0] - image.min()) / np.ptp(image)
    spectrum = np.fft.fft2(scaled)
    log = np.log(np.abs(spectrum) + 1e-8)
    smooth = sum(np.roll(np.roll(log, i, 0), j, 1) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9
    restored = np.fft.ifft2(np.exp(log - smooth) * spectrum / np.abs(spectrum))
    expected = ndimage.gaussian_filter(np.abs(restored) ** 2, 2.5)
    expected = (expected - expected.min()) / np.ptp(expected)
    np.testing.assert_allclose(spectral_residual_saliency(image, width=32), expected, atol=1e-6)


def test_spectral_residual_finds_what_is_small_and_unlike_the_rest():
    spot = _disc(radius=4)
    saliency = spectral_residual_saliency(_image((0.9, 0.2, 0.2), (0.5, 0.5, 0.5), spot, noise=0.05))
    assert saliency[ndimage.binary_dilation(spot, iterations=2)].max() == 1
    assert saliency[spot].mean() > 4 * saliency[~ndimage.binary_dilation(spot, iterations=8)].mean()


@pytest.mark.parametrize(
    ("inside", "outside"),
    [((0.9, 0.8, 0.7), (0.3, 0.3, 0.35)), ((0.3, 0.2, 0.15), (0.85, 0.65, 0.55)), ((0.2, 0.5, 0.8), (0.8, 0.5, 0.3))],
)
def test_a_disc_on_a_plain_ground_is_found_bright_or_dark(inside, outside):
    found = clean_saliency(boundary_saliency(_image(inside, outside)), 1)
    assert _iou(found, _disc()) > 0.8


def test_what_reaches_the_border_is_background():
    image = _image((0.9, 0.8, 0.7), (0.3, 0.3, 0.35))
    image[:, :, :20] = np.reshape((0.2, 0.7, 0.3), (3, 1, 1))
    saliency = boundary_saliency(image)
    assert saliency[_disc()].mean() > 1.5 * saliency[:, :18].mean()


@pytest.mark.parametrize("axis", [1, 2])
def test_a_mirror_image_has_the_mirrored_saliency(axis):
    image = _image((0.3, 0.2, 0.15), (0.85, 0.65, 0.55))
    straight, mirrored = (SaliencyMap()(x) for x in (image, np.flip(image, axis).copy()))
    assert np.abs(straight - np.flip(mirrored, axis)).mean() < 0.03


def test_geodesic_distances_agree_with_floyd_warshall():
    regions = np.arange(16).reshape(4, 4).repeat(3, 0).repeat(3, 1)
    random = np.random.default_rng(1)
    colors = random.random((16, 3))
    difference = np.linalg.norm(colors[:, None] - colors[None], axis=2)
    at_border = np.array([row in (0, 3) or column in (0, 3) for row in range(4) for column in range(4)])
    shortest = np.full((16, 16), np.inf)
    for a in range(16):
        for b in range(16):
            steps = abs(a // 4 - b // 4) + abs(a % 4 - b % 4)
            if a == b:
                shortest[a, b] = 0
            elif steps == 1 or (at_border[a] and at_border[b]):
                shortest[a, b] = difference[a, b]
    for k in range(16):
        for a in range(16):
            for b in range(16):
                shortest[a, b] = min(shortest[a, b], shortest[a, k] + shortest[k, b])
    np.testing.assert_allclose(region_distances(regions, difference, at_border), shortest, atol=1e-9)


def test_optimized_saliency_is_the_minimum_of_its_cost():
    random = np.random.default_rng(2)
    foreground, background = random.random((2, 9))
    difference = np.abs(random.normal(0, 8, (9, 9)))
    difference = difference + difference.T
    adjacent = random.random((9, 9)) > 0.4
    adjacent = np.triu(adjacent, 1) | np.triu(adjacent, 1).T

    def cost(s):
        total = sum(background[p] * s[p] ** 2 + foreground[p] * (s[p] - 1) ** 2 for p in range(9))
        for p in range(9):
            for q in range(p + 1, 9):
                if adjacent[p, q]:
                    total += (np.exp(-(difference[p, q] ** 2) / 200) + 0.1) * (s[p] - s[q]) ** 2
        return total

    best = optimized_saliency(foreground, background, difference, adjacent)
    for _ in range(50):
        assert cost(best) < cost(best + random.normal(0, 0.01, 9))


def test_dark_corners_are_not_part_of_the_image():
    corners = np.hypot(*(np.indices((64, 80)) - np.reshape((31.5, 39.5), (2, 1, 1)))) > 42
    image = _image((0.3, 0.2, 0.15), (0.85, 0.65, 0.55))
    inside = field_of_view(np.where(corners, 0.01, image))
    assert _iou(inside, ~corners) > 0.95
    found = clean_saliency(boundary_saliency(np.where(corners, 0.01, image)), 1)
    assert _iou(found, _disc()) > 0.8
    assert field_of_view(image).all()
    assert field_of_view(np.where(_disc(radius=8), image, 0.01)).all()


def test_a_constant_image_has_no_saliency():
    image = np.full((3, 32, 40), 0.4)
    for method in ("spectral_residual", "boundary", "fused"):
        assert not SaliencyMap(method)(image).any()
        assert not SaliencyLabels(method)(image).any()


def test_maps_are_fused_by_their_mean_at_the_working_resolution():
    image = _image((0.3, 0.2, 0.15), (0.85, 0.65, 0.55))
    parts = [SaliencyMap(method)(image) for method in ("spectral_residual", "boundary")]
    np.testing.assert_allclose(SaliencyMap("fused")(image), np.mean(parts, axis=0), atol=1e-5)
    small = SaliencyMap("boundary", resolution=40)(image)
    assert small.shape == (1, 64, 80)
    assert np.abs(small - parts[1]).mean() < 0.1
    with pytest.raises(ValueError, match="method is 'guess', must be one of spectral_residual, boundary, fused"):
        SaliencyMap("guess")


def test_cleaning_fills_holes_and_keeps_the_largest():
    saliency = np.zeros((40, 40))
    saliency[5:25, 5:25], saliency[12:15, 12:15], saliency[30:36, 30:36], saliency[2, 30] = 0.8, 0.1, 0.9, 1
    mask = clean_saliency(saliency, 1)
    expected = np.zeros((40, 40), bool)
    expected[5:25, 5:25] = True
    assert _iou(mask, expected) > 0.98
    assert mask[13, 13]
    assert not clean_saliency(np.ones((8, 8))).any()


def test_labels_are_the_cleaned_map_of_every_slice(tmp_path):
    first, second = _image((0.3, 0.2, 0.15), (0.85, 0.65, 0.55)), _image((0.9, 0.8, 0.7), (0.3, 0.3, 0.35), seed=1)
    volume = np.stack([first, second], axis=-1)
    labels = SaliencyLabels(cache_dir=tmp_path)(volume)
    assert labels.shape == (1, 64, 80, 2)
    assert labels.dtype == np.int32
    for index, image in enumerate((first, second)):
        assert np.array_equal(labels[0, ..., index], clean_saliency(SaliencyMap()(image)[0]))
        assert _iou(labels[0, ..., index] == 1, _disc()) > 0.75
    assert len(list(tmp_path.iterdir())) == 1
    assert np.array_equal(SaliencyLabels(cache_dir=tmp_path)(volume), labels)
    assert not SaliencyLabels(min_area=5000)(volume).any()


@pytest.mark.parametrize(
    ("algorithm", "name"), [("boundary_saliency", "SIGMA_COLOR"), ("spectral_residual", "EPSILON")]
)
def test_constants_of_the_algorithm_are_in_the_key_of_the_cache(tmp_path, monkeypatch, algorithm, name):
    image = _image((0.3, 0.2, 0.15), (0.85, 0.65, 0.55))
    SaliencyLabels(cache_dir=tmp_path)(image)
    monkeypatch.setattr(f"monai_fewshot.transforms.pseudo_labels.{algorithm}.{name}", 0.5)
    SaliencyLabels(cache_dir=tmp_path)(image)
    assert len(list(tmp_path.iterdir())) == 2


def test_dictionary_forms_write_beside_the_image():
    image = MetaTensor(torch.from_numpy(_image((0.3, 0.2, 0.15), (0.85, 0.65, 0.55))).float())
    item = SaliencyMapd("image")(SaliencyLabelsd("image")({"image": image}))
    assert isinstance(item["saliency"], MetaTensor)
    np.testing.assert_allclose(item["saliency"].numpy(), SaliencyMap()(image.numpy()), atol=1e-6)
    assert np.array_equal(item["pseudo_label"].numpy(), SaliencyLabels()(image.numpy()))
