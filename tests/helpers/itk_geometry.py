# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What SimpleITK finds where the voxels of an array with a RAS affine lie."""

from __future__ import annotations

import numpy as np
import SimpleITK

RAS_TO_LPS = np.diag([-1.0, -1, 1, 1])


def itk_image(array, affine):
    """Array (X, Y, Z) with a RAS affine as an image of SimpleITK."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(np.transpose(array)))
    _place(image, np.asarray(affine, dtype=float))
    return image


def itk_values(image, affine, shape, interpolation="linear", outside=np.nan):
    """Values of an image of SimpleITK at the voxels of a grid, (X, Y, Z); ``outside`` where the image has none."""
    grid = SimpleITK.Image([int(n) for n in shape], SimpleITK.sitkUInt8)
    _place(grid, np.asarray(affine, dtype=float))
    method = {"linear": SimpleITK.sitkLinear, "nearest": SimpleITK.sitkNearestNeighbor}[interpolation]
    values = SimpleITK.Resample(
        SimpleITK.Cast(image, SimpleITK.sitkFloat64), grid, SimpleITK.Transform(), method, outside
    )
    return SimpleITK.GetArrayFromImage(values).transpose()


def itk_coordinates(image, affine, shape):
    """Continuous indices in an image of SimpleITK of the voxels of a grid, (3, X, Y, Z)."""
    to_index = np.linalg.inv(itk_affine(image)) @ np.asarray(affine, dtype=float)
    return np.einsum("ij,j...->i...", to_index, np.stack([*np.indices(shape), np.ones(shape)]))[:3]


def itk_affine(image):
    """RAS affine of an image of SimpleITK."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return RAS_TO_LPS @ affine


def itk_changed(image, function):
    """An image of SimpleITK with the values that a function makes of its own, in double precision."""
    image = SimpleITK.Cast(image, SimpleITK.sitkFloat64)
    other = SimpleITK.GetImageFromArray(function(SimpleITK.GetArrayFromImage(image)))
    other.CopyInformation(image)
    return other


def assert_in_place(image, label, raw_image, raw_label, atol=1e-2):
    """Hold all voxels of a scan to what SimpleITK finds at their places in raw images.

    Labels are compared but for voxels as near to one voxel of the raw label as to another.

    Args:
        image: MetaTensor (X, Y, Z); where the raw image ends its values are not compared.
        label: MetaTensor of the same shape and affine.
        raw_image: image of SimpleITK, interpolated linearly.
        raw_label: image of SimpleITK, whose nearest voxel counts; its voxels hold all values that the label holds.
        atol: greatest difference of values.

    Returns:
        Where the raw image is, (X, Y, Z).
    """
    affine, shape = image.affine.numpy(), image.shape
    np.testing.assert_allclose(label.affine, affine, atol=1e-6)
    expected = itk_values(raw_image, affine, shape)
    inside = np.isfinite(expected)
    assert inside.mean() > 0.15
    np.testing.assert_allclose(np.asarray(image)[inside], expected[inside], atol=atol)
    coordinates = itk_coordinates(raw_label, affine, shape)
    clear = inside & (np.abs(coordinates - np.floor(coordinates) - 0.5) > 2e-3).all(axis=0)
    assert clear.mean() > 0.1
    found = itk_values(raw_label, affine, shape, "nearest", 0)
    np.testing.assert_array_equal(np.asarray(label)[clear], found[clear])
    assert set(np.unique(label)) == set(np.unique(SimpleITK.GetArrayFromImage(raw_label)))
    return inside


def _place(image, affine):
    lps = RAS_TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
