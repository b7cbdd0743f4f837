# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from monai.utils import optional_import
from scipy.ndimage import distance_transform_edt

from monai_fewshot.data.scans.label_grids import OFF_GRID, LabelGrid

__all__ = ["Contour", "fill_contours"]

polygon, _ = optional_import("skimage.draw", name="polygon")
points_in_poly, _ = optional_import("skimage.measure", name="points_in_poly")
logger = logging.getLogger(__name__)

SAME_PLANE_MM = 0.1
FINER = 3
"""How many times finer the grid is on which areas between planes are found."""
WIDEST_GAP = 1.5
"""How far apart neighboring planes may be, in distances of planes as they are in most places."""
WIDEST_GAP_MM = 15.0


class Contour(NamedTuple):
    """A closed contour: its points (n, 3), in LPS mm, and whether its type asks for the exclusive or with others."""

    points: np.ndarray
    is_xor: bool


def fill_contours(contours: Sequence[Contour], grid: LabelGrid, name: str) -> np.ndarray:
    """Fill the contours of a region: a voxel belongs to it if its center lies inside or on an edge.

    Contours are put together within their plane alone: those inside of another are holes, those inside of a hole
    islands, all others are united. A slice of the grid takes the plane that lies on it. Between two planes it takes
    what lies between their areas, halfway where it is halfway (the mean of signed distances from their edges), so that
    contours drawn on thinner or thicker slices than those of the image fill it. Where planes are farther apart than
    usual, nothing is filled in.

    Args:
        contours: one at least.
        grid: of the image.
        name: of the region.

    Returns:
        Flat indices of voxels of the grid.

    Raises:
        ValueError: where contours cross the planes of the grid.
    """
    indices = [grid.lps_to_index[:3, :3] @ each.points.T + grid.lps_to_index[:3, 3:] for each in contours]
    depth = int(np.argmin(np.max([np.ptp(index, axis=1) for index in indices], axis=0)))
    if max(np.ptp(index[depth]) for index in indices) > 2 * OFF_GRID:
        raise ValueError(
            f"has contours of {name} that are not drawn in the planes of its image's voxels; give the annotation of "
            "this series."
        )
    plane = [axis for axis in range(3) if axis != depth]
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    shape, step = tuple(grid.shape[axis] for axis in plane), float(spacing[depth])
    order = np.argsort([index[depth].mean() for index in indices], kind="stable")
    heights = np.array([indices[number][depth].mean() for number in order])
    starts = np.flatnonzero(np.diff(heights, prepend=-np.inf) > min(SAME_PLANE_MM / step, 0.1))
    groups = np.split(order, starts[1:])
    planes = [float(np.mean(part)) for part in np.split(heights, starts[1:])]
    drawn = [[Contour(indices[number][plane].T, contours[number].is_xor) for number in group] for group in groups]
    gaps = np.diff(planes)
    usual = min(WIDEST_GAP * float(np.median(gaps)), WIDEST_GAP_MM / step) if len(gaps) else 0.0
    runs = _runs(gaps > max(usual, 1 + OFF_GRID))
    slices = _slices(planes, runs, drawn, shape, spacing[plane])
    _tell(name, planes, sorted(slices), step)
    return np.concatenate([grid.flat(_voxels(mask, height, depth)) for height, mask in slices.items()])


def _plane_area(contours: Sequence[Contour], shape: tuple[int, ...]) -> np.ndarray:
    """Put the contours of one plane together, whose points are (n, 2) indices in it."""
    filled = [np.zeros(shape, bool) for _ in contours]
    for mask, (points, _) in zip(filled, contours, strict=True):
        mask[polygon(*points.T, shape)] = True
    if any(is_xor for _, is_xor in contours):
        return np.logical_xor.reduce(filled)
    largest_first = sorted(range(len(filled)), key=lambda number: -np.count_nonzero(filled[number]))
    depths: dict[int, int] = {}
    area = np.zeros(shape, bool)
    for number in largest_first:
        around = [
            other
            for other in depths
            if not (filled[number] & ~filled[other]).any()
            and (filled[number] != filled[other]).any()
            and points_in_poly(contours[number].points, contours[other].points).mean() > 0.5
        ]
        depths[number] = len(around)
    for level in range(1 + max(depths.values())):
        for number in (number for number, own in depths.items() if own == level):
            area = area & ~filled[number] if level % 2 else area | filled[number]
    return area


def _slices(
    planes: Sequence[float],
    runs: Sequence[tuple[int, int]],
    drawn: Sequence[Sequence[Contour]],
    shape: tuple[int, ...],
    spacing: np.ndarray,
) -> dict[int, np.ndarray]:
    """Area by slice of the grid, of contours in planes at fractional heights, by their runs without a gap."""
    slices = {}
    for lower, upper in runs:
        own = planes[lower : upper + 1]
        first, last = int(np.ceil(own[0] - OFF_GRID)), int(np.floor(own[-1] + OFF_GRID))
        for height in range(first, last + 1) if first <= last else [round(own[0])]:
            nearest = lower + int(np.abs(np.subtract(own, height)).argmin())
            if abs(planes[nearest] - height) <= OFF_GRID or first > last:
                slices[height] = _plane_area(drawn[nearest], shape)
                continue
            above = int(np.searchsorted(planes, height))
            weight = (height - planes[above - 1]) / (planes[above] - planes[above - 1])
            slices[height] = _between(drawn[above - 1], drawn[above], weight, shape, spacing)
    return slices


def _runs(parted: np.ndarray) -> list[tuple[int, int]]:
    """First and last plane of each run without a gap."""
    ends = np.flatnonzero(parted)
    return list(zip([0, *(ends + 1)], [*ends, len(parted)], strict=True))


def _between(
    lower: Sequence[Contour], upper: Sequence[Contour], weight: float, shape: tuple[int, ...], spacing: np.ndarray
) -> np.ndarray:
    """Area between those of two planes, ``weight`` of the way from the lower to the upper one, on a finer grid."""
    area = np.zeros(shape, bool)
    points = np.concatenate([each.points for each in (*lower, *upper)])
    start = np.clip(np.floor(points.min(axis=0)).astype(int) - 1, 0, shape)
    stop = np.clip(np.ceil(points.max(axis=0)).astype(int) + 2, start, shape)
    distances = []
    for contours in (lower, upper):
        finer = [Contour((each.points - start) * FINER + FINER // 2, each.is_xor) for each in contours]
        inside = np.pad(_plane_area(finer, tuple(FINER * (stop - start))), 1)
        if not inside.any():
            return area
        distances.append(distance_transform_edt(inside, spacing) - distance_transform_edt(~inside, spacing))
    between = (1 - weight) * distances[0] + weight * distances[1] > 0
    area[tuple(map(slice, start, stop))] = between[1:-1, 1:-1][FINER // 2 :: FINER, FINER // 2 :: FINER]
    return area


def _tell(name: str, planes: Sequence[float], slices: Sequence[int], step: float) -> None:
    """Log where contours lie beside the slices, and where slices in between have none."""
    off = np.abs(np.subtract.outer(slices, planes)).min(axis=1) > OFF_GRID
    if off.any():
        logger.warning(
            "%s: contours lie beside %d of %d slices (of %.4g mm), which take what lies between their neighbors",
            name,
            int(off.sum()),
            len(slices),
            step,
        )
    empty = [f"{one + 1} to {other - 1}" for one, other in pairwise(slices) if other - one > 1]
    if empty:
        logger.warning("%s: no contour, and nothing filled in, in slices %s (from 0)", name, ", ".join(empty))


def _voxels(mask: np.ndarray, height: int, depth: int) -> np.ndarray:
    first, second = np.nonzero(mask)
    return np.insert(np.stack([first, second]), depth, height, axis=0)
