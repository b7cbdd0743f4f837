# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from monai_fewshot.data.slices.slice_stack import SliceStack
from monai_fewshot.transforms import EpisodeAugmentation

from .episodes import Episodes

__all__ = ["PseudoLabelEpisodes"]


class PseudoLabelEpisodes(Episodes):
    """Self-supervised episodes: a random pseudo-label of a random slice, which is support and query in one.

    Support and query differ by their augmentation. Every value that occurs in a slice can be drawn, and no other. Of
    pseudo-labels that span slices, such as supervoxels, support and query can be successive slices instead, in either
    order.

    Based on: Ouyang et al., "Self-supervision with Superpixels", ECCV 2020, section 3.3,
    https://arxiv.org/abs/2007.09886; successive slices: Hansen et al., "Anomaly detection-inspired few-shot medical
    image segmentation through self-supervision with supervoxels", Medical Image Analysis 2022, section 3.3,
    https://arxiv.org/abs/2203.02048.

    Deviation: the first paper transforms the query alone, its implementation both; the latter is the default here.
    Slices are drawn first, then pseudo-labels, so that large supervoxels are drawn more often; one that shows in too
    few slices for support and query serves in a single one.

    Args:
        stack: slices with integer maps of pseudo-labels, 0 where there is none.
        length: number of episodes.
        shots: number of support images K.
        seed: of all draws.
        augmentation: transforms of each image.
        augment_support: whether support images are transformed too, or the query alone.
        normalize: what is done to images after their augmentation.
        successive: whether support and query are successive slices that show the pseudo-label.
        min_pixels: pixels of a pseudo-label that a slice must have for it to be drawn there.

    Raises:
        ValueError: where no slice has a pseudo-label.
    """

    def __init__(
        self,
        stack: SliceStack,
        length: int,
        shots: int = 1,
        seed: int = 0,
        augmentation: EpisodeAugmentation | None = None,
        augment_support: bool = True,
        normalize: Callable[[torch.Tensor], torch.Tensor] | None = None,
        successive: bool = False,
        min_pixels: int = 1,
    ) -> None:
        super().__init__(stack, length, seed, augmentation, augment_support, normalize)
        self.shots = shots
        self.successive = successive
        self.scan = stack.scan.tolist()
        self.present = [_values_of_size(label, min_pixels) for label in stack.label.cpu()]
        self.choices = [(s, values) for s, values in enumerate(self.present) if values]
        if not self.choices:
            raise ValueError(
                "No slice has a pseudo-label: is the foreground mask of every slice empty, or are min_pixels, "
                f"{min_pixels}, too many?"
            )

    def draw_slices(self, random: np.random.RandomState) -> tuple[list[int], Any]:
        """Draw a slice, one of the pseudo-labels in it, and, where asked for, neighbors that show it too."""
        index, values = self.choices[random.randint(len(self.choices))]
        value = values[random.randint(len(values))]
        if not self.successive:
            return [index] * (self.shots + 1), [value]
        return self._successive(random, index, value), [value]

    def _successive(self, random: np.random.RandomState, index: int, value: int) -> list[int]:
        """Draw K + 1 successive slices of a scan, ``index`` among them, that show a pseudo-label."""
        starts = [
            start
            for start in range(max(index - self.shots, 0), index + 1)
            if all(self._shows(s, index, value) for s in range(start, start + self.shots + 1))
        ]
        if not starts:
            return [index] * (self.shots + 1)
        start = starts[random.randint(len(starts))]
        found = list(range(start, start + self.shots + 1))
        return found[::-1] if random.randint(2) else found

    def _shows(self, other: int, index: int, value: int) -> bool:
        return other < len(self.scan) and self.scan[other] == self.scan[index] and value in self.present[other]


def _values_of_size(label: torch.Tensor, min_pixels: int) -> list[int]:
    values, counts = label.unique(return_counts=True)
    return values[(values > 0) & (counts >= min_pixels)].tolist()
