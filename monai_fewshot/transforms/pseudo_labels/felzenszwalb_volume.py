# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import product

import numpy as np
from monai.utils import OptionalImportError, optional_import
from scipy.ndimage import gaussian_filter

__all__ = ["compiled_merge", "felzenszwalb_settings", "felzenszwalb_volume", "merge_sorted_edges", "voxel_edges"]

IN_PLANE = [(0, 1, 0), (1, 0, 0), (1, 1, 0), (1, -1, 0)]
HALF_NEIGHBORS = [*IN_PLANE, *((*offset, 1) for offset in product((-1, 0, 1), repeat=2))]


def voxel_edges(
    image: np.ndarray, foreground: np.ndarray, spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Weighted edges between the 26 neighbors of a volume's foreground.

    .. math::
        w(p, p + o) = \lVert I(p) - I(p + o) \rVert \, \frac{\lVert o \odot s \rVert}{\lVert o \rVert}

    with s the spacing in units of the in-plane spacing: between thick slices a difference of intensity counts for as
    much more as the voxels lie farther apart.

    Args:
        image: intensities, (C, H, W, D).
        foreground: boolean, (H, W, D).
        spacing: distance of voxels along H, W and D; only their ratios matter.

    Returns:
        Numbers of the first and second voxels, int32, counting foreground voxels in the array's order, and the weights,
        float64, each (edges,).
    """
    number = np.full(foreground.shape, -1, np.int32)
    number[foreground] = np.arange(np.count_nonzero(foreground), dtype=np.int32)
    relative = np.asarray(spacing, float) / np.sqrt(spacing[0] * spacing[1])
    firsts, seconds, weights = [], [], []
    for offset in HALF_NEIGHBORS:
        lower = tuple(slice(max(-step, 0), -step if step > 0 else None) for step in offset)
        upper = tuple(slice(max(step, 0), step if step < 0 else None) for step in offset)
        inside = foreground[lower] & foreground[upper]
        difference = np.sqrt(sum((channel[upper][inside] - channel[lower][inside]) ** 2 for channel in image))
        weights.append(difference * (np.linalg.norm(offset * relative) / np.linalg.norm(offset)))
        firsts.append(number[lower][inside])
        seconds.append(number[upper][inside])
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(weights)


def merge_sorted_edges(
    firsts: np.ndarray, seconds: np.ndarray, weights: np.ndarray, count: int, scale: float, min_size: int
) -> np.ndarray:
    r"""Join the nodes of a graph into regions, edge by edge in the order of weight.

    Regions :math:`C_1, C_2` that an edge of weight w connects are joined where

    .. math::
        w < \min_i \left( Int(C_i) + \frac{scale}{\lvert C_i \rvert} \right)

    with Int the greatest weight inside the region; then, in a second pass, where one of them has fewer than
    ``min_size`` nodes.

    Args:
        firsts: first nodes of the edges, in ascending order of weight.
        seconds: second nodes.
        weights: weights.
        count: number of nodes.
        scale: observation level, in the unit of the weights.
        min_size: smallest region, in nodes.

    Returns:
        For every node the number of one node of its region, the same for all of a region; (count,).
    """
    parents = np.arange(count)
    sizes = np.ones(count, np.int64)
    inner = np.zeros(count)
    for small_regions in (False, True):
        for edge in range(len(firsts)):
            first, second = firsts[edge], seconds[edge]
            while parents[first] != first:
                parents[first] = parents[parents[first]]
                first = parents[first]
            while parents[second] != second:
                parents[second] = parents[parents[second]]
                second = parents[second]
            if first == second:
                continue
            if small_regions:
                join = min(sizes[first], sizes[second]) < min_size
            else:
                join = weights[edge] < min(inner[first] + scale / sizes[first], inner[second] + scale / sizes[second])
            if join:
                root, leaf = min(first, second), max(first, second)
                parents[leaf] = root
                sizes[root] += sizes[leaf]
                inner[root] = weights[edge]
    for node in range(count):
        parents[node] = parents[parents[node]]
    return parents


def felzenszwalb_settings(scale: float, min_size: int, sigma: float) -> dict[str, float | int]:
    """Checked arguments of Felzenszwalb's algorithm, by name.

    Raises:
        ValueError: when one is out of its range.
    """
    if scale < 0 or min_size < 1 or sigma < 0:
        raise ValueError(
            f"scale and sigma must be 0 or greater and min_size 1 or greater, got {scale}, {sigma} and {min_size}"
        )
    return {"scale": float(scale), "min_size": int(min_size), "sigma": float(sigma)}


@lru_cache(maxsize=1)
def compiled_merge() -> Callable[..., np.ndarray]:
    """:func:`merge_sorted_edges`, compiled by numba at its first call.

    Raises:
        OptionalImportError: when numba is not installed.
    """
    numba, available = optional_import("numba")
    if not available:
        raise OptionalImportError(
            "supervoxels need numba, which is not installed: pip install 'monai_fewshot[supervoxels]'"
        )
    return numba.njit(nogil=True)(merge_sorted_edges)


def felzenszwalb_volume(
    image: np.ndarray,
    foreground: np.ndarray,
    scale: float,
    min_size: int,
    sigma: float,
    spacing: Sequence[float],
) -> np.ndarray:
    """Felzenszwalb's graph-based segmentation of a volume's foreground.

    On a volume of one slice, all of it foreground, it divides as ``skimage.segmentation.felzenszwalb`` does.

    Args:
        image: intensities, (C, H, W, D).
        foreground: boolean, (H, W, D).
        scale: observation level; higher means larger regions. In units of 1/255, as in scikit-image.
        min_size: smallest region, in voxels.
        sigma: standard deviation of the smoothing that precedes, in pixels of a slice; along D as much in millimeters.
        spacing: distance of voxels along H, W and D; only their ratios matter.

    Returns:
        int64 map, (H, W, D), positive in the foreground and 0 outside.
    """
    widths = sigma * np.sqrt(spacing[0] * spacing[1]) / np.asarray(spacing, float)
    widths[np.asarray(foreground.shape) == 1] = 0
    smooth = np.stack([gaussian_filter(channel.astype(np.float64), widths, mode="reflect") for channel in image])
    firsts, seconds, weights = voxel_edges(smooth, foreground, spacing)
    order = np.argsort(weights, kind="stable")
    count = int(np.count_nonzero(foreground))
    roots = compiled_merge()(firsts[order], seconds[order], weights[order], count, scale / 255, min_size)
    labels = np.zeros(foreground.shape, np.int64)
    labels[foreground] = roots + 1
    return labels
