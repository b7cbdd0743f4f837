# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from monai_fewshot.utils import device_tensor

__all__ = ["BoxPaste", "PasteDraw"]


class PasteDraw(NamedTuple):
    """What :class:`BoxPaste` draws for one image: the rows and columns of a box, first and one past the last."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


class BoxPaste:
    """Paste a box of one image, with its label, into another, for whole batches, known as CutMix.

    MONAI's ``CutMix`` mixes a batch with itself; this one only tells where boxes lie, which any image may fill.

    Based on: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features",
    ICCV 2019, https://arxiv.org/abs/1905.04899, and French et al., "Semi-supervised semantic segmentation needs strong,
    varied perturbations", BMVC 2020, https://arxiv.org/abs/1906.01916.

    Args:
        prob: probability that an image gets a box; else the box is empty.
        area: range of the box's share of the image.
        stretch: largest ratio of its sides, as parts of the image's; less for a box that would not fit into the image.

    Raises:
        ValueError: where a number is out of its range.

    Example:
        >>> paste = BoxPaste(prob=1.0)
        >>> box = paste.draw(np.random.RandomState(0), (8, 8))
        >>> int(paste.inside([box], (8, 8), "cpu").sum()) == (box.bottom - box.top) * (box.right - box.left)
        True
    """

    def __init__(self, prob: float = 0.8, area: tuple[float, float] = (0.05, 0.4), stretch: float = 2.5) -> None:
        if not 0 <= prob <= 1 or not 0 < area[0] <= area[1] <= 1 or stretch < 1:
            raise ValueError(
                "prob must lie from 0 to 1, area must be a range from above 0 to 1, low first, and stretch must be 1 "
                f"or more, got {prob}, {area} and {stretch}."
            )
        self.prob = prob
        self.area = area
        self.stretch = stretch

    def draw(self, random: np.random.RandomState, size: Sequence[int]) -> PasteDraw:
        """Draw the box of one image of size (H, W)."""
        is_pasted = random.random_sample() < self.prob
        side = math.sqrt(random.uniform(*self.area))
        ratio = min(max(self.stretch ** random.uniform(-0.5, 0.5), side), 1 / side)
        sides = [min(n, max(1, round(n * side * factor))) for n, factor in zip(size, (ratio, 1 / ratio), strict=True)]
        top, left = (random.randint(n - length + 1) for n, length in zip(size, sides, strict=True))
        return PasteDraw(top, top + sides[0], left, left + sides[1]) if is_pasted else PasteDraw()

    def inside(self, draws: Sequence[PasteDraw], size: Sequence[int], device: torch.device | str) -> torch.Tensor:
        """Tell which pixels lie in the boxes.

        Args:
            draws: B draws.
            size: (H, W).
            device: of the result.

        Returns:
            (B, 1, H, W), boolean; what ``torch.where`` takes to mix images and labels.
        """
        top, bottom, left, right = device_tensor(list(map(list, draws)), torch.device(device)).T[:, :, None]
        rows, columns = (torch.arange(n, device=device) for n in size)
        in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
        return (in_rows[:, :, None] & in_columns[:, None, :]).unsqueeze(1)
