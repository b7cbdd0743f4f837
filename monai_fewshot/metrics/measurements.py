# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from monai.utils import convert_to_numpy
from nibabel.orientations import aff2axcodes
from scipy.ndimage import find_objects
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from .row_table import RowTable

__all__ = ["MEASUREMENT_TABLE", "Measurement", "axial_axis", "largest_axial_diameter", "measure"]

PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class Measurement:
    """One label of one scan in figures.

    Attributes:
        scan: its name.
        label: class number.
        name: of the class.
        voxels: their number.
        volume_ml: volume in milliliters.
        axial_diameter_mm: largest axial diameter in millimeters, see :func:`largest_axial_diameter`.
        mean: of the image's intensities, in its own units; NaN where the label is empty, as are the percentiles.
        p05: 5th percentile, linear between values, as are the following.
        p25: 25th percentile.
        p50: median.
        p75: 75th percentile.
        p95: 95th percentile.
        volume_low_ml: the least volume that the network thinks possible, see
            :func:`monai_fewshot.inferers.volume_bounds`; NaN where it tells no probabilities.
        volume_high_ml: the most.
    """

    scan: str
    label: int
    name: str
    voxels: int
    volume_ml: float
    axial_diameter_mm: float
    mean: float
    p05: float
    p25: float
    p50: float
    p75: float
    p95: float
    volume_low_ml: float = math.nan
    volume_high_ml: float = math.nan


MEASUREMENT_TABLE = RowTable(Measurement, "measurements")
"""Reads and writes ``measurements.csv``."""


def measure(
    scan: str,
    image: np.ndarray | torch.Tensor,
    label: np.ndarray | torch.Tensor,
    class_names: Mapping[int, str],
    affine: np.ndarray | torch.Tensor,
) -> list[Measurement]:
    """Measure every class of a label map.

    Args:
        scan: name of the scan.
        image: (H, W, D) intensities as they were acquired, e.g. in Hounsfield units.
        label: (H, W, D) class numbers.
        class_names: the classes; those that are not found have a row too, of volume 0.
        affine: (4, 4) from voxels to millimeters.

    Returns:
        One row a class.

    Raises:
        ValueError: where image and label differ in size.

    Example:
        >>> label = np.zeros((10, 10, 10), dtype=np.uint8)
        >>> label[2:5, 2:6, 3] = 1
        >>> row = measure("scan", 7 * label, label, {1: "liver"}, np.diag([2, 2, 5, 1]))[0]
        >>> round(row.volume_ml, 3), round(row.axial_diameter_mm, 3), row.mean
        (0.24, 7.211, 7.0)
    """
    voxels, numbers, steps = (np.asarray(convert_to_numpy(array)) for array in (image, label, affine))
    if voxels.shape != numbers.shape or numbers.ndim != 3:
        raise ValueError(
            f"Scan {scan}: the image has {voxels.shape} voxels and the label map {numbers.shape}: give both as "
            "(H, W, D) on one grid."
        )
    known = np.array([0, *sorted(class_names)])
    places = np.searchsorted(known, numbers) * np.isin(numbers, known)
    boxes = dict(zip(known[1:].tolist(), find_objects(places, max_label=len(class_names)), strict=True))
    return [_measure(scan, voxels, numbers, c, name, steps, boxes[c]) for c, name in class_names.items()]


def largest_axial_diameter(mask: np.ndarray, affine: np.ndarray) -> float:
    """Measure the largest distance between two voxels of a mask that lie in the same axial slice.

    It is exact: of all pairs in all slices the farthest, taken over the corners of each slice's convex hull, between
    the centers of voxels, as ITK's Feret diameter has it. A single voxel has 0, and a disc falls short of its diameter
    by up to a voxel. Axial slices are those along the array axis that lies nearest to head and foot by the affine;
    distances are those in space, whatever the spacing and obliqueness.

    Args:
        mask: (H, W, D), true inside.
        affine: (4, 4) from voxels to RAS millimeters.

    Returns:
        Millimeters; NaN for an empty mask.
    """
    axis = axial_axis(affine)
    in_plane = np.delete(np.asarray(affine, dtype=float)[:3, :3], axis, axis=1)
    slices = np.moveaxis(np.asarray(mask, dtype=bool), axis, 0)
    return max((_diameter(plane, in_plane) for plane in slices if plane.any()), default=math.nan)


def axial_axis(affine: np.ndarray) -> int:
    """Find the array axis across which axial slices lie, the one nearest to head and foot.

    Args:
        affine: (4, 4) from voxels to RAS millimeters.

    Example:
        >>> axial_axis(np.diag([1, 1, 5, 1]))
        2
    """
    codes = aff2axcodes(affine)
    return next(axis for axis, code in enumerate(codes) if code in ("S", "I"))


def _measure(
    scan: str,
    image: np.ndarray,
    label: np.ndarray,
    number: int,
    name: str,
    affine: np.ndarray,
    box: tuple[slice, ...] | None,
) -> Measurement:
    if box is None:
        return Measurement(scan, number, name, 0, 0.0, *[math.nan] * (2 + len(PERCENTILES)))
    mask = label[box] == number
    values = image[box][mask].astype(float)
    return Measurement(
        scan,
        number,
        name,
        values.size,
        values.size * abs(float(np.linalg.det(affine[:3, :3]))) / 1000,
        largest_axial_diameter(mask, affine),
        float(values.mean()),
        *map(float, np.percentile(values, PERCENTILES)),
    )


def _diameter(plane: np.ndarray, steps: np.ndarray) -> float:
    rows = np.flatnonzero(plane.any(axis=1))
    first = plane[rows].argmax(axis=1)
    last = plane.shape[1] - 1 - plane[rows, ::-1].argmax(axis=1)
    corners = _hull(np.unique(np.concatenate([np.stack([rows, first], 1), np.stack([rows, last], 1)]), axis=0))
    return float(pdist(corners @ steps.T).max(initial=0.0))


def _hull(points: np.ndarray) -> np.ndarray:
    """Leave the corners of the convex hull; of points on a line, all."""
    try:
        return points[ConvexHull(points).vertices] if len(points) > 2 else points
    except QhullError:
        return points
