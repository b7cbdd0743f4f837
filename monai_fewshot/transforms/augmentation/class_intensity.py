# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from monai_fewshot.utils import device_tensor

__all__ = ["ClassIntensity"]


class ClassIntensity:
    """Make classes brighter or darker, each by itself, in batches of annotated images.

    One annotated scan shows one contrast between its organs; in another patient, scanner or disease it is another. The
    distance of a class's pixels from the darkest of the image is multiplied by a factor, and the borders of classes are
    smoothed over three pixels.

    Based on: intensities drawn by class, Billot et al., "SynthSeg: Segmentation of brain MRI scans of any contrast
    and resolution without retraining", Medical Image Analysis 2023, https://arxiv.org/abs/2107.09559. There all of it
    is drawn; here the image stays, but for the factors.

    Args:
        strength: the logarithm of a factor lies from minus this to this.
        prob: probability that a class is changed.

    Raises:
        ValueError: where an argument is out of its range.

    Example:
        >>> change = ClassIntensity()
        >>> image, label = torch.rand(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
        >>> change.apply(image, label, [change.draw(np.random.RandomState(0), num_classes=1)]).shape
        torch.Size([1, 1, 8, 8])
    """

    def __init__(self, strength: float = 0.35, prob: float = 0.5) -> None:
        if strength < 0 or not 0 <= prob <= 1:
            raise ValueError(f"strength must not be negative and prob must lie from 0 to 1, got {strength} and {prob}.")
        self.strength = strength
        self.prob = prob

    def draw(self, random: np.random.RandomState, num_classes: int) -> list[float]:
        """Draw the logarithms of the factors of one image's classes 1..N."""
        factors = random.uniform(-self.strength, self.strength, num_classes)
        return (factors * (random.random_sample(num_classes) < self.prob)).tolist()

    def apply(self, image: torch.Tensor, label: torch.Tensor, draws: Sequence[Sequence[float]]) -> torch.Tensor:
        """Transform a batch.

        Args:
            image: (B, C, H, W).
            label: (B, 1, H, W), 1..N the classes; all other values stay as they are.
            draws: B draws.

        Returns:
            (B, C, H, W).
        """
        factors = device_tensor([[0.0, *draw] for draw in draws], image.device, image.dtype)
        index = label.long().flatten(1)
        index = index.masked_fill(index >= factors.shape[1], 0)
        field = F.avg_pool2d(factors.gather(1, index).view(label.shape), 3, 1, 1, count_include_pad=False)
        low = image.amin((2, 3), keepdim=True)
        return (image - low) * field.exp() + low
