# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Patients that are functions of places in mm, so that a transform moves them without any interpolation."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SHAPE, SPACING = (56, 52, 18), np.array([2.0, 2.0, 6.0])
ORGANS = ((1, (-10, 4, 3), (16, 15, 18)), (2, (16, -6, -4), (12, 14, 16)))
AFFINE = np.array([[1.06, 0.05, 0.02], [-0.06, 0.95, 0.0], [0.02, 0.03, 1.05]])
SHIFT = np.array([9.0, -8.0, 10.0])


def places(shape=SHAPE, spacing=SPACING):
    """Places (H, W, D, 3) in mm of the voxels of a grid whose middle is 0."""
    return (np.stack(np.indices(shape), -1) - (np.array(shape) - 1) / 2) * spacing


def label_at(points):
    """Classes at places (..., 3): two ellipsoids."""
    label = np.zeros(points.shape[:-1], np.uint8)
    for number, center, radii in ORGANS:
        label[(((points - center) / radii) ** 2).sum(-1) < 1] = number
    return label


def image_at(points):
    """Intensities at places (..., 3): a body, its two organs and what else is in it."""
    random = np.random.default_rng(3)
    value = 1.0 / (1 + np.exp(((points / [46, 42, 46]) ** 2).sum(-1) * 8 - 8))
    for number, center, radii in ORGANS:
        value = value + (1.5 - number) / (1 + np.exp((((points - center) / radii) ** 2).sum(-1) * 6 - 6))
    for _ in range(14):
        center, radii = random.uniform((-32, -30, -34), (32, 30, 34)), random.uniform(6, 12, 3)
        value = value + random.uniform(-0.6, 1.2) * np.exp(-(((points - center) / radii) ** 2).sum(-1))
    return value.astype(np.float32)


def moved(points):
    """Apply an affine transform to places (..., 3)."""
    return points @ AFFINE.T + SHIFT


def other_contrast(value):
    """Intensities of another kind of scan."""
    return 900 - 400 * value + 60 * value**2


def propagated(label, points, spacing=SPACING, error=0.0):
    """Read a label map at places of its patient, at the nearest voxel.

    Args:
        label: (H, W, D), the middle of its grid at 0.
        points: (..., 3) in mm.
        spacing: of the voxels in mm.
        error: how far from its place a point may be read, in mm.

    Returns:
        Labels (27, ...): at the places, and so far from them along edges, faces and corners of a cube.
    """
    steps = np.stack(np.indices((3, 3, 3)), -1).reshape(27, 3) - 1.0
    steps *= error / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1)
    read = []
    for step in steps:
        index = (points + step) / spacing + (np.array(label.shape) - 1) / 2
        read.append(ndimage.map_coordinates(label, np.moveaxis(index, -1, 0), order=0, mode="constant"))
    return np.stack(read)


def bounds(label, number, points, error, spacing=SPACING):
    """Say where a class must be found, and where it may, by a transform that errs by ``error`` mm at most.

    What lies between ``must`` and ``may``, as the truth does, has with the truth an intersection of |must| voxels or
    more and a union of |may| or fewer, so that its Dice is 2 |must| / (|must| + |may|) or more.

    Returns:
        Two masks of the shape of the places, and the least Dice.
    """
    found = propagated(label, points, spacing, error) == number
    must, may = found.all(0), found.any(0)
    return must, may, 2 * must.sum() / (must.sum() + may.sum())
