# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from monai_fewshot.data.slices.slice_stack import SliceStack
from monai_fewshot.transforms import EpisodeAugmentation, RandMaskSplit
from monai_fewshot.utils import device_tensor

from .pseudo_label_episodes import PseudoLabelEpisodes

__all__ = ["MaskSplitEpisodes"]


class MaskSplitEpisodes(PseudoLabelEpisodes):
    """Self-supervised episodes: an image with a pseudo-mask, one half of which is the support's, the other the query's.

    Support and query are the same image, each augmented with a draw of its own. The pseudo-mask is one of the label's
    values, drawn where there are several; saliency masks have one.

    Based on: Amac et al., "MaskSplit: Self-supervised Meta-learning for Few-shot Semantic Segmentation", WACV 2022,
    section 3.2, https://arxiv.org/abs/2110.12207.

    Args:
        stack: images, or slices of volumes, with integer maps of pseudo-masks, 0 where there is none.
        length: number of episodes.
        split: how masks are split; None for the whole mask on either side.
        shots: number of support images K: views of the one image with the same half.
        seed: of all draws.
        augmentation: transforms of each image.
        augment_support: whether support images are transformed too, or the query alone.
        normalize: what is done to images after their augmentation.

    Raises:
        ValueError: where no image has a pseudo-mask.
    """

    def __init__(
        self,
        stack: SliceStack,
        length: int,
        split: RandMaskSplit | None = None,
        shots: int = 1,
        seed: int = 0,
        augmentation: EpisodeAugmentation | None = None,
        augment_support: bool = True,
        normalize: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(stack, length, shots, seed, augmentation, augment_support, normalize)
        self.split = RandMaskSplit(prob=0.0) if split is None else split

    def draw_slices(self, random: np.random.RandomState) -> tuple[list[int], Any]:
        """Draw an image, one of its pseudo-masks, and how it is split."""
        slices, (value,) = super().draw_slices(random)
        return slices, (value, self.split.draw(random, self.stack.label.shape[2:]))

    def cut(self, label: torch.Tensor, draws: Sequence[Any]) -> torch.Tensor:
        """Split the pseudo-masks of a batch of episodes."""
        values = device_tensor([value for value, _ in draws], label.device)
        mask = label[:, 0] == values.view(-1, 1, 1, 1)
        support, query = self.split.apply(mask, [draw for _, draw in draws])
        return torch.cat([support.unsqueeze(1).expand(-1, self.shots, -1, -1, -1), query.unsqueeze(1)], dim=1)
