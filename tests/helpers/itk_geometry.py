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


def _place(image, affine):
    lps = RAS_TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
