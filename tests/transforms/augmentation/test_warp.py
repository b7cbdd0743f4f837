# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.transforms import AdjustContrast
from scipy import ndimage

from monai_fewshot.transforms import adjust_gamma, affine_matrices, elastic_displacement, warp

SIZES = [(24, 24), (20, 33), (31, 16)]


def _matrix(rotation=0.0, translation=(0.0, 0.0), shear=0.0, zoom=1.0):
    return affine_matrices(
        torch.tensor([rotation]), torch.tensor([translation]), torch.tensor([shear]), torch.tensor([zoom])
    )


def _smooth_image(size, seed=0):
    noise = np.random.default_rng(seed).normal(size=size)
    return ndimage.gaussian_filter(noise, 2).astype(np.float32)


def _dot(size, offset):
    """A single pixel, so many pixels from the center."""
    image = torch.zeros(1, 1, *size)
    image[0, 0, size[0] // 2 + offset[0], size[1] // 2 + offset[1]] = 1
    return image


def _offset(image):
    """The center of mass, in pixels from the center."""
    return np.array(ndimage.center_of_mass(image[0, 0].numpy())) - [n // 2 for n in image.shape[2:]]


def _input_coordinates(matrix, size, displacement=None):
    """Where each output pixel lies in the input, (2, H, W), by a loop over pixels."""
    center = (np.array(size) - 1) / 2
    m = matrix[0].double().numpy()
    out = np.zeros((2, *size))
    for i in range(size[0]):
        for j in range(size[1]):
            point = np.array([i, j]) - center
            if displacement is not None:
                point = point + displacement[:, i, j]
            out[:, i, j] = m[:, :2] @ point + m[:, 2] + center
    return out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("with_displacement", [False, True])
def test_warp_agrees_with_scipy(size, with_displacement):
    matrix = _matrix(0.3, (1.5, -2.25), 0.1, 1.2)
    displacement = np.random.default_rng(1).uniform(-2, 2, (2, *size)).astype(np.float32) if with_displacement else None
    places = _input_coordinates(matrix, size, displacement)
    tensor = None if displacement is None else torch.from_numpy(displacement)[None]

    image = _smooth_image(size)
    expected = ndimage.map_coordinates(image, places, order=1, mode="nearest")
    out = warp(torch.from_numpy(image)[None, None], matrix, tensor)
    np.testing.assert_allclose(out[0, 0], expected, atol=1e-5)

    label = np.random.default_rng(2).integers(0, 5, size).astype(np.float32)
    expected = ndimage.map_coordinates(label, places, order=0, mode="grid-constant", cval=0)
    out = warp(torch.from_numpy(label)[None, None], matrix, tensor, mode="nearest")
    np.testing.assert_array_equal(out[0, 0], expected)


@pytest.mark.parametrize("size", SIZES)
def test_warp_agrees_with_scipy_affine_transform(size):
    matrix = _matrix(-0.4, (3.0, 2.0), 0.2, 0.9)
    m, center = matrix[0].double().numpy(), (np.array(size) - 1) / 2
    offset = m[:, 2] + center - m[:, :2] @ center
    image = _smooth_image(size)
    expected = ndimage.affine_transform(image, m[:, :2], offset, order=1, mode="nearest")
    np.testing.assert_allclose(warp(torch.from_numpy(image)[None, None], matrix)[0, 0], expected, atol=1e-5)


def test_each_image_of_a_batch_has_its_own_motion():
    matrices = torch.cat([_matrix(), _matrix(0.5), _matrix(translation=(2.0, 3.0))])
    images = torch.from_numpy(np.stack([_smooth_image((20, 28), s) for s in range(3)]))[:, None]
    together = warp(images, matrices)
    for i in range(3):
        torch.testing.assert_close(together[i], warp(images[i : i + 1], matrices[i : i + 1])[0])
    torch.testing.assert_close(together[0], images[0])


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_no_motion_changes_nothing(mode):
    image = torch.from_numpy(_smooth_image((17, 30)))[None, None]
    torch.testing.assert_close(warp(image, _matrix(), torch.zeros(1, 2, 17, 30), mode), image)


@pytest.mark.parametrize("size", [(41, 41), (41, 61), (61, 41)])
def test_translation_moves_the_content(size):
    moved = warp(_dot(size, [3, -4]), _matrix(translation=(5.0, -7.0)))
    np.testing.assert_allclose(_offset(moved), [8, -11], atol=1e-4)


@pytest.mark.parametrize("size", [(41, 41), (41, 61), (61, 41)])
def test_rotation_turns_the_first_axis_to_the_second(size):
    quarter = _matrix(rotation=math.pi / 2)
    np.testing.assert_allclose(_offset(warp(_dot(size, [9, 0]), quarter)), [0, 9], atol=1e-4)
    np.testing.assert_allclose(_offset(warp(_dot(size, [0, 9]), quarter)), [-9, 0], atol=1e-4)


def test_zoom_grows_the_content():
    np.testing.assert_allclose(_offset(warp(_dot((41, 61), [6, -4]), _matrix(zoom=1.5))), [9, -6], atol=0.05)
    square = torch.zeros(1, 1, 60, 60)
    square[..., 20:40, 20:40] = 1
    assert warp(square, _matrix(zoom=1.5), mode="nearest").sum() == 30 * 30


def test_shear_slides_pixels_along_the_first_axis():
    shear = _matrix(shear=math.atan(0.5))
    np.testing.assert_allclose(_offset(warp(_dot((41, 61), [4, 8]), shear)), [4 - 0.5 * 8, 8], atol=1e-4)
    np.testing.assert_allclose(_offset(warp(_dot((41, 61), [4, 0]), shear)), [4, 0], atol=1e-4)


def test_content_moves_by_rotation_of_shear_then_zoom_then_translation():
    matrix = _matrix(0.2, (2.0, 5.0), 0.15, 1.1)[0].numpy()
    turn = np.array([[math.cos(0.2), -math.sin(0.2)], [math.sin(0.2), math.cos(0.2)]])
    slide = np.array([[1, -math.tan(0.15)], [0, 1]])
    for point in ([0, 0], [3, 4], [-7, 1]):
        output = 1.1 * slide @ turn @ point + [2, 5]
        np.testing.assert_allclose(matrix[:, :2] @ output + matrix[:, 2], point, atol=1e-5)


def test_outside_images_repeat_their_border_and_labels_are_background():
    image = torch.arange(1.0, 17.0).view(1, 1, 4, 4)
    away = _matrix(translation=(10.0, 0.0))
    torch.testing.assert_close(warp(image, away), image[:, :, :1].expand(1, 1, 4, 4))
    assert not warp(image, away, mode="nearest").any()


@pytest.mark.parametrize(("alpha", "sigma"), [(10.0, 5.0), (20.0, 2.5)])
@pytest.mark.parametrize("size", [(48, 48), (40, 64)])
def test_elastic_displacement_is_a_gaussian_filter(alpha, sigma, size):
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 2, *size)).astype(np.float32)
    out = elastic_displacement(torch.from_numpy(noise), alpha, sigma).numpy()
    pixel_variance = 1 / 12
    for item in range(2):
        for axis in range(2):
            wider = math.sqrt(sigma**2 + pixel_variance)
            expected = alpha * ndimage.gaussian_filter(noise[item, axis], wider, mode="constant")
            np.testing.assert_allclose(out[item, axis], expected, atol=2e-3 * np.abs(expected).max())
            plain = alpha * ndimage.gaussian_filter(noise[item, axis], sigma, mode="constant")
            np.testing.assert_allclose(out[item, axis], plain, atol=0.02 * np.abs(plain).max())


@pytest.mark.parametrize("channels", [1, 3])
def test_gamma_is_that_of_monai_for_each_item_and_channel(channels):
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(3, channels, 12, 15)).astype(np.float32)) * 40 + 3
    gamma = torch.tensor([0.4, 1.0, 1.7])
    out = adjust_gamma(image, gamma)
    for i in range(3):
        for c in range(channels):
            expected = AdjustContrast(gamma[i].item())(image[i, c]).as_tensor()
            torch.testing.assert_close(out[i, c], expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(out.amin((2, 3)), image.amin((2, 3)))
    torch.testing.assert_close(out.amax((2, 3)), image.amax((2, 3)))


def test_gamma_leaves_a_constant_image_alone():
    image = torch.full((2, 1, 4, 5), -3.0)
    assert torch.equal(adjust_gamma(image, torch.tensor([0.5, 1.5])), image)
