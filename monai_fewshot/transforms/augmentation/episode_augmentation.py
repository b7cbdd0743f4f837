# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from monai_fewshot.utils import device_tensor

from .affine_elastic import RandAffineElastic, WarpDraw
from .color_jitter import ColorDraw, RandColorJitter
from .intensity_variation import IntensityDraw, IntensityVariation
from .warp import adjust_gamma
from .where_drawn import apply_where_drawn

__all__ = ["AugmentationDraw", "EpisodeAugmentation"]


class AugmentationDraw(NamedTuple):
    """What :class:`EpisodeAugmentation` draws for one image.

    Attributes:
        warp: of the geometry, or None.
        gamma: of the intensities, 1 for none.
        color: of the colors or intensities, or None.
    """

    warp: WarpDraw | None
    gamma: float
    color: ColorDraw | IntensityDraw | None = None


class EpisodeAugmentation:
    """Geometric and intensity transforms between the images of an episode, for whole batches.

    Per item, :class:`RandAffineElasticd`, :class:`monai.transforms.RandAdjustContrastd` and :class:`RandColorJitterd`
    do the same.

    Based on: Ouyang et al., "Self-supervision with Superpixels", ECCV 2020, section 4.1,
    https://arxiv.org/abs/2007.09886; defaults are its ranges.

    Args:
        geometry: the geometric transform, None for none.
        gamma: range of the exponent of intensities, None for none.
        color: the transform of colors or intensities, None for none.
    """

    def __init__(
        self,
        geometry: RandAffineElastic | None = None,
        gamma: tuple[float, float] | None = (0.5, 1.5),
        color: RandColorJitter | IntensityVariation | None = None,
    ) -> None:
        if gamma is not None and not 0 < gamma[0] <= gamma[1]:
            raise ValueError(f"gamma must be a range of positive exponents, low first, got {gamma}.")
        self.geometry = geometry
        self.gamma = gamma
        self.color = color

    def draw(self, random: np.random.RandomState, size: Sequence[int]) -> AugmentationDraw:
        """Draw the parameters of one image of size (H, W)."""
        warp = None
        if self.geometry is not None and (self.geometry.prob == 1 or random.random_sample() < self.geometry.prob):
            warp = self.geometry.draw(random, size)
        gamma = 1.0 if self.gamma is None else random.uniform(*self.gamma)
        return AugmentationDraw(warp, gamma, None if self.color is None else self.color.draw(random, size))

    def __call__(
        self, image: torch.Tensor, label: torch.Tensor, draws: Sequence[AugmentationDraw]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Transform a batch of images with their labels.

        Args:
            image: (B, C, H, W).
            label: (B, 1, H, W).
            draws: B draws.

        Returns:
            Image and label of the same shapes.
        """
        if self.geometry is not None:
            move = partial(self.geometry.apply, modes=["bilinear"] * image.shape[1] + ["nearest"])
            both = torch.cat([image, label.to(image.dtype)], dim=1)
            both = apply_where_drawn(move, both, [draw.warp for draw in draws])
            image, label = both[:, :-1], both[:, -1:]
        if self.gamma is not None:
            image = adjust_gamma(image, device_tensor([draw.gamma for draw in draws], image.device, image.dtype))
        if self.color is not None:
            colors: list[Any] = [draw.color for draw in draws]
            image = self.color.apply(image, colors)
        return image, label
