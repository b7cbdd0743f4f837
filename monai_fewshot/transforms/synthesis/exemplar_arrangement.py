# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.utils import StrEnum

from monai_fewshot.transforms.augmentation.affine_elastic import RandAffineElastic, WarpDraw
from monai_fewshot.transforms.augmentation.warp import affine_matrices

__all__ = ["ExemplarArrangement", "draw_class_warps", "draw_warp", "turn_about"]


class ExemplarArrangement(StrEnum):
    """Whether each class has a geometric transform of its own, ``FREE``, or all have one, ``WHOLE``."""

    FREE = "free"
    WHOLE = "whole"


def draw_warp(geometry: RandAffineElastic, random: np.random.RandomState, size: Sequence[int]) -> WarpDraw | None:
    """Draw a geometric transform, or none, with the probability of ``geometry``, for an image of size (H, W)."""
    moved = random.random_sample() < geometry.prob
    drawn = geometry.draw(random, size)
    return drawn if moved else None


def draw_class_warps(
    geometry: RandAffineElastic,
    arrangement: ExemplarArrangement,
    random: np.random.RandomState,
    size: Sequence[int],
    centers: np.ndarray,
) -> tuple[WarpDraw | None, ...]:
    """Draw the geometric transforms of an exemplar's classes.

    Args:
        geometry: what they are drawn from.
        arrangement: one for all classes, or one for each, about its center.
        random: the source of randomness.
        size: (H, W).
        centers: (N, 2), see :func:`~monai_fewshot.transforms.class_centers`.

    Returns:
        N draws; None where a class stays.
    """
    if arrangement == ExemplarArrangement.WHOLE:
        return (draw_warp(geometry, random, size),) * len(centers)
    return tuple(turn_about(draw_warp(geometry, random, size), center) for center in centers)


def turn_about(draw: WarpDraw | None, center: np.ndarray) -> WarpDraw | None:
    """Turn, shear, zoom and flip about another point than the center of the image, by a change of the translation.

    Args:
        draw: a draw, or None.
        center: (2,), the point, pixels from the center of the image.

    Returns:
        The draw whose content moves by the drawn translation at that point, or None.
    """
    if draw is None:
        return None
    rotation, shear, zoom = torch.tensor([[draw.rotation], [draw.shear], [draw.zoom]], dtype=torch.float64)
    inverse = affine_matrices(rotation, rotation.new_zeros(1, 2), shear, zoom)[0, :, :2].numpy()
    inverse = inverse * np.where(draw.flip, -1, 1)[:, None]
    moved = np.array(draw.translation) + center - np.linalg.solve(inverse, center)
    return draw._replace(translation=(float(moved[0]), float(moved[1])))
