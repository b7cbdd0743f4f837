# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from monai_fewshot.utils import device_tensor

from .blur import gaussian_blur
from .noise import uniform_noise
from .warp import adjust_gamma
from .where_drawn import apply_where_drawn

__all__ = ["IntensityDraw", "IntensityVariation"]

BIAS_KNOTS = 4
"""Points along each axis between which a bias field is interpolated."""
UNIFORM_TO_UNIT = 3**0.5
"""Brings uniform noise between -1 and 1 to a standard deviation of 1."""


class IntensityDraw(NamedTuple):
    """What :class:`IntensityVariation` draws for one image.

    Attributes:
        gain: factor of the distance from the image's mean.
        shift: what is added, in standard deviations of the image.
        gamma: exponent within the image's range, 1 for none.
        blur_sigma: standard deviation of a Gaussian blur, pixels; 0 for none.
        bias: strength of a smooth field by which intensities are multiplied, 0 for none.
        noise: standard deviation of the noise, in standard deviations of the image; 0 for none.
        noise_seed: of field and noise (:func:`uniform_noise`).
    """

    gain: float = 1.0
    shift: float = 0.0
    gamma: float = 1.0
    blur_sigma: float = 0.0
    bias: float = 0.0
    noise: float = 0.0
    noise_seed: int = 0


class IntensityVariation:
    """Random gain, shift, gamma, bias field, blur and noise for batches of images in whatever unit.

    Channels may be any number. Mean, standard deviation and range are those of each image and channel, so that the
    ranges of the draws hold for intensities from 0 to 1 as for normalized ones. Nothing is cut off. An image of one
    value stays as it is.

    Args:
        gain: largest change of the factor either way, below 1.
        shift: largest shift either way, in standard deviations.
        gamma: range of the exponent.
        blur_prob: probability of a blur.
        blur_sigma: range of its standard deviation, for images ``REFERENCE_SIZE`` pixels wide; it scales with the
            width.
        bias: largest strength of a smooth field, ``exp(bias * f)`` with f from -1 to 1, by which the distance from the
            image's minimum is multiplied, as coils of MR scanners do.
        noise: largest standard deviation of noise, in standard deviations of the image.

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
        bias: float = 0.0,
        noise: float = 0.0,
    ) -> None:
        if not 0 <= gain < 1 or min(shift, bias, noise) < 0 or not 0 <= blur_prob <= 1:
            raise ValueError(
                "gain must lie from 0 to below 1, shift, bias and noise must not be negative and blur_prob must lie "
                f"from 0 to 1, got {gain}, {shift}, {bias}, {noise} and {blur_prob}."
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
        self.bias = bias
        self.noise = noise

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
        draw = IntensityDraw(1 + gain, shift, gamma, sigma if blurred else 0.0)
        if not self.bias and not self.noise:
            return draw
        bias, noise = random.uniform(0, 1, 2) * [self.bias, self.noise]
        return draw._replace(bias=bias, noise=noise, noise_seed=random.randint(1 << 31))

    def apply(self, image: torch.Tensor, draws: Sequence[IntensityDraw]) -> torch.Tensor:
        """Transform a batch: gamma first, then the bias field, gain and shift, blur, and noise.

        Args:
            image: (B, C, H, W).
            draws: B draws.

        Returns:
            (B, C, H, W).
        """
        rows = [[d.gain, d.shift, d.gamma, d.bias, d.noise] for d in draws]
        numbers = device_tensor(rows, image.device, image.dtype)
        gain, shift, gamma, bias, noise = numbers.view(-1, 5, 1, 1, 1).unbind(1)
        image = adjust_gamma(image, gamma.flatten())
        if self.bias:
            low = image.amin((2, 3), keepdim=True)
            image = (image - low) * (bias * self._uniform(draws, (1, BIAS_KNOTS, BIAS_KNOTS), image)).exp() + low
        std, mean = torch.std_mean(image, (2, 3), correction=0, keepdim=True)
        out = (image - mean) * gain + mean + shift * std
        out = apply_where_drawn(gaussian_blur, out, [draw.blur_sigma or None for draw in draws])
        if self.noise:
            out = out + self._uniform(draws, image.shape[1:], image) * UNIFORM_TO_UNIT * noise * std
        return out

    def _uniform(self, draws: Sequence[IntensityDraw], shape: Sequence[int], image: torch.Tensor) -> torch.Tensor:
        """Noise between -1 and 1 of a shape (channels, rows, columns), smoothly brought to the images' size."""
        noise = uniform_noise(device_tensor([d.noise_seed for d in draws], image.device), shape).to(image.dtype)
        if noise.shape[2:] == image.shape[2:]:
            return noise
        return F.interpolate(noise, size=image.shape[2:], mode="bicubic", align_corners=True).clamp(-1, 1)
