# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.distance import cdist
from skimage.color import rgb2lab
from skimage.segmentation import slic

from .field_of_view import field_of_view

__all__ = ["boundary_saliency", "optimized_saliency", "region_distances"]

SIGMA_COLOR = 10.0
SIGMA_BOUNDARY = 1.0
SIGMA_SPACE = 0.25
MIN_SMOOTHNESS = 0.1


def boundary_saliency(image: np.ndarray, num_regions: int = 200) -> np.ndarray:
    r"""Saliency by robust background detection: what the image's border is not connected to.

    On superpixels with mean colors (CIELAB) and geodesic distances :math:`d_{geo}` between neighbors' colors, each
    region p spans an area and a part of the border, whose ratio tells background:

    .. math::
        Area(p) = \sum_i s_{pi}, \quad Len(p) = \sum_{i \in border} s_{pi}, \quad
        s_{pi} = e^{-d_{geo}^2(p, i) / 2 \sigma_{clr}^2}, \quad
        BndCon(p) = \frac{Len(p)}{\sqrt{Area(p)}}

    .. math::
        w^{bg}_p = 1 - e^{-BndCon^2(p) / 2 \sigma_{bnd}^2}, \qquad
        w^{ctr}_p = \sum_i d_{app}(p, i) \, e^{-d_{spa}^2(p, i) / 2 \sigma_{spa}^2} \, w^{bg}_i

    and the saliency solves the least squares of ``optimized_saliency`` with both.

    Based on: Zhu, Liang, Wei and Sun, "Saliency Optimization from Robust Background Detection", CVPR 2014, sections 3
    and 4, with its constants: sigma_clr 10, sigma_bnd 1, sigma_spa 0.25 of the image, mu 0.1.

    Deviation: dark corners and frames, as dermoscopes and endoscopes leave them, are not part of the image
    (:func:`field_of_view`), whose border is then theirs.

    Args:
        image: (3, H, W), colors from 0 to 1 or 0 to 255, or (1, H, W) of any unit, whose range is taken for black to
            white.
        num_regions: number of superpixels, about.

    Returns:
        (H, W), 0 to 1; zeros for a constant image.
    """
    inside = field_of_view(image)
    lab = _lab(image)
    if not np.ptp(lab[inside], axis=0).any():
        return np.zeros(image.shape[1:])
    regions = slic(lab, num_regions, compactness=20, convert2lab=False, start_label=1, channel_axis=2, mask=inside)
    regions = np.unique(np.where(inside, regions, 0), return_inverse=True)[1].reshape(regions.shape)
    regions = regions - 1 if not inside.all() else regions
    if regions.max() <= 0:
        return np.zeros(image.shape[1:])
    colors, centers = _means(regions, lab), _means(regions, _places(regions.shape))
    at_border = np.zeros(regions.max() + 1, bool)
    at_border[np.unique(regions[inside & ~ndimage.binary_erosion(inside)])] = True
    difference = cdist(colors, colors)
    spanned = np.exp(-(region_distances(regions, difference, at_border) ** 2) / (2 * SIGMA_COLOR**2))
    connected = spanned[:, at_border].sum(1) / np.sqrt(spanned.sum(1))
    background = 1 - np.exp(-(connected**2) / (2 * SIGMA_BOUNDARY**2))
    closeness = np.exp(-(cdist(centers, centers) ** 2) / (2 * SIGMA_SPACE**2))
    contrast = (difference * closeness) @ background
    contrast = (contrast - contrast.min()) / max(np.ptp(contrast), 1e-12)
    adjacent = _neighbors(regions, at_border)
    saliency = optimized_saliency(contrast, background, difference, adjacent)
    saliency = (saliency - saliency.min()) / max(np.ptp(saliency), 1e-12)
    return np.where(regions < 0, 0, saliency[regions])


def region_distances(regions: np.ndarray, difference: np.ndarray, at_border: np.ndarray) -> np.ndarray:
    """Geodesic distances between regions: least sums of color differences along paths of neighbors.

    Regions at the image's border are all neighbors of one another.

    Args:
        regions: (H, W), numbers from 0 without gaps, below 0 where there is none.
        difference: (R, R), differences of colors.
        at_border: (R,), whether a region touches the border.

    Returns:
        (R, R).
    """
    lengths = np.where(_neighbors(regions, at_border), np.maximum(difference, 1e-9), 0)
    return shortest_path(lengths, method="D", directed=False)


def optimized_saliency(
    foreground: np.ndarray, background: np.ndarray, difference: np.ndarray, adjacent: np.ndarray
) -> np.ndarray:
    r"""Saliency of regions that best agrees with their weights and their neighbors.

    The minimum of

    .. math::
        \sum_p w^{bg}_p s_p^2 + \sum_p w^{fg}_p (s_p - 1)^2 + \sum_{p < q} w_{pq} (s_p - s_q)^2, \qquad
        w_{pq} = e^{-d_{app}^2(p, q) / 2 \sigma_{clr}^2} + \mu

    over pairs of neighbors, a linear system.

    Based on: Zhu et al., CVPR 2014, section 4, equations 9 and 10.

    Args:
        foreground: (R,), 0 to 1.
        background: (R,), 0 to 1.
        difference: (R, R), differences of colors.
        adjacent: (R, R) bool, which regions are neighbors.

    Returns:
        (R,).
    """
    weight = np.where(adjacent, np.exp(-(difference**2) / (2 * SIGMA_COLOR**2)) + MIN_SMOOTHNESS, 0)
    system = np.diag(weight.sum(1) + foreground + background) - weight
    return np.linalg.solve(system, foreground)


def _lab(image: np.ndarray) -> np.ndarray:
    array = np.moveaxis(image.astype(np.float64), 0, -1)
    if array.shape[2] == 3:
        return rgb2lab(array / 255 if array.max() > 1 else array)
    gray = array.mean(2)
    gray = (gray - gray.min()) / max(np.ptp(gray), 1e-12)
    return np.stack([100 * gray, 0 * gray, 0 * gray], axis=2)


def _places(size: tuple[int, ...]) -> np.ndarray:
    axes = [(np.arange(length) + 0.5) / max(size) for length in size]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=2)


def _means(regions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Average values (H, W, C) over regions, those below 0 left out; (R, C)."""
    inside = regions >= 0
    flat = regions[inside]
    sums = [np.bincount(flat, channel[inside]) for channel in np.moveaxis(values, 2, 0)]
    return np.stack(sums, axis=1) / np.bincount(flat)[:, None]


def _neighbors(regions: np.ndarray, at_border: np.ndarray) -> np.ndarray:
    adjacent = np.outer(at_border, at_border)
    for one, other in ((regions[1:], regions[:-1]), (regions[:, 1:], regions[:, :-1])):
        both = (one >= 0) & (other >= 0)
        adjacent[one[both], other[both]] = adjacent[other[both], one[both]] = True
    np.fill_diagonal(adjacent, False)
    return adjacent
