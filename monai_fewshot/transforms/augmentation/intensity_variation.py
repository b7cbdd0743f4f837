# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from monai_fewshot.utils import device_tensor

from .blur import gaussian_blur
from .warp import adjust_gamma
from .where_drawn import apply_where_drawn

__all__ = ["IntensityDraw", "IntensityVariation"]


class IntensityDraw(NamedTuple):
    """What :class:`IntensityVariation` draws for one image.

    Attributes:
        gain: factor of the distance from the image's mean.
        shift: what is added, in standard deviations of the image.
        gamma: exponent within the image's range, 1 for none.
        blur_sigma: standard deviation of a Gaussian blur, pixels; 0 for none.
    """

    gain: float = 1.0
    shift: float = 0.0
    gamma: float = 1.0
    blur_sigma: float = 0.0


class IntensityVariation:
    """Random gain, shift, gamma and blur for batches of images in whatever unit, with any number of channels.

    Mean, standard deviation and range are those of each image and channel, so that the ranges of the draws hold for
    intensities from 0 to 1 as for normalized ones. Nothing is cut off. An image of one value stays as it is.

    Args:
        gain: largest change of the factor either way, below 1.
        shift: largest shift either way, in standard deviations.
        gamma: range of the exponent.
        blur_prob: probability of a blur.
        blur_sigma: range of its standard deviation, for images ``REFERENCE_SIZE`` pixels wide; it scales with the
            width.

    Raises:
        ValueError: where a number is out of its range.

    Example:
        >>> variation = IntensityVariation()
        >>> draws = [variation.draw(np.random.RandomState(seed), (8, 8)) for seed in range(2)]
        >>> variation.apply(torch.rand(2, 1, 8, 8), draws).shape
        torch.Size([2, 1, 8, 8])
    """

    REFERENCE_SIZE = 256

    def __init__(
        self,
        gain: float = 0.3,
        shift: float = 0.3,
        gamma: tuple[float, float] = (0.7, 1.4),
        blur_prob: float = 0.5,
        blur_sigma: tuple[float, float] = (0.2, 1.5),
    ) -> None:
        if not 0 <= gain < 1 or shift < 0 or not 0 <= blur_prob <= 1:
            raise ValueError(
                "gain must lie from 0 to below 1, shift must not be negative and blur_prob must lie from 0 to 1, "
                f"got {gain}, {shift} and {blur_prob}."
            )
        if not 0 < gamma[0] <= gamma[1] or not 0 < blur_sigma[0] <= blur_sigma[1]:
            raise ValueError(
                f"gamma and blur_sigma must be ranges of positive numbers, low first, got {gamma} and {blur_sigma}."
            )
        self.gain = gain
        self.shift = shift
        self.gamma = gamma
        self.blur_prob = blur_prob
        self.blur_sigma = blur_sigma

    def draw(self, random: np.random.RandomState, size: Sequence[int]) -> IntensityDraw:
        """Draw the parameters of one image.

        Args:
            random: the source of randomness.
            size: (H, W).
        """
        gain, shift = random.uniform(-1, 1, 2) * [self.gain, self.shift]
        gamma = random.uniform(*self.gamma)
        blurred = random.random_sample() < self.blur_prob
        sigma = random.uniform(*self.blur_sigma) * size[-1] / self.REFERENCE_SIZE
        return IntensityDraw(1 + gain, shift, gamma, sigma if blurred else 0.0)

    def apply(self, image: torch.Tensor, draws: Sequence[IntensityDraw]) -> torch.Tensor:
        """Transform a batch: gamma first, then gain and shift, then blur.

        Args:
            image: (B, C, H, W).
            draws: B draws.

        Returns:
            (B, C, H, W).
        """
        numbers = device_tensor([draw[:-1] for draw in draws], image.device, image.dtype)
        gain, shift, gamma = numbers.view(-1, 3, 1, 1, 1).unbind(1)
        image = adjust_gamma(image, gamma.flatten())
        std, mean = torch.std_mean(image, (2, 3), correction=0, keepdim=True)
        out = (image - mean) * gain + mean + shift * std
        return apply_where_drawn(gaussian_blur, out, [draw.blur_sigma or None for draw in draws])
