# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from monai_fewshot.data.slices.slice_stack import SliceStack
from monai_fewshot.transforms.synthesis.surrogate_tasks import SurrogateTask
from monai_fewshot.utils import EpisodeKeys, device_tensor

from .episodes import Episodes
from .numbered_samples import NumberedSamples, numbered_random

__all__ = ["SurrogateEpisodes"]


class SurrogateEpisodes(NumberedSamples):
    """Episodes with images without annotations beside them, for a surrogate task.

    Like the episode itself, what stands beside episode number i is a function of (seed, i) alone. Images other than
    colors are brought to 0..1 by their own range for the task, and back for the network.

    Based on: Feyjie et al., "Semi-supervised few-shot learning for medical image segmentation", 2020, section 1.2,
    https://arxiv.org/abs/2003.08462.

    Args:
        episodes: the few-shot episodes.
        unlabeled: images without annotations, of the size of the episodes'.
        num_unlabeled: number of images U beside each episode; 5, 10 or 20 in the paper.
        task: how images are corrupted.
        seed: of the draws.
        normalize: what is done to corrupted images (B, C, H, W) before the network, as for the episodes' own.

    Raises:
        ValueError: where images differ in channels or size, or there are fewer than ``num_unlabeled``.
    """

    def __init__(
        self,
        episodes: Episodes,
        unlabeled: SliceStack,
        num_unlabeled: int,
        task: SurrogateTask,
        seed: int = 0,
        normalize: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        expected, found = tuple(episodes.stack.image.shape[1:]), tuple(unlabeled.image.shape[1:])
        if expected != found:
            raise ValueError(f"Images without annotations are {found}, those of the episodes {expected} (C, H, W).")
        if not 1 <= num_unlabeled <= len(unlabeled.image):
            raise ValueError(
                f"{num_unlabeled} images without annotations are asked for beside each episode, "
                f"there are {len(unlabeled.image)}."
            )
        super().__init__(len(episodes), seed)
        self.episodes = episodes
        self.unlabeled = unlabeled
        self.num_unlabeled = num_unlabeled
        self.task = task
        self.normalize = normalize

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Make the episodes of a batch.

        Returns:
            What the episodes hold and ``surrogate_image`` (U, C, H, W) and ``surrogate_target`` (U, C, H, W), 0 to 1.
        """
        draws = [self._draw(index) for index in indices]
        image, _ = self.unlabeled.take([place for places, _ in draws for place in places])
        seeds = device_tensor([seed for _, seeds in draws for seed in seeds], image.device)
        low, span = image.new_zeros(1), image.new_ones(1)
        if self.unlabeled.image.is_floating_point():
            low = image.amin((2, 3), keepdim=True)
            span = (image.amax((2, 3), keepdim=True) - low).clamp(min=1e-7)
        target = (image - low) / span
        corrupted = self.task.corrupt(target, seeds) * span + low
        if self.normalize is not None:
            corrupted = self.normalize(corrupted)
        beside = zip(*(x.unflatten(0, (len(indices), -1)) for x in (corrupted, target)), strict=True)
        return [
            {**episode, EpisodeKeys.SURROGATE_IMAGE: images, EpisodeKeys.SURROGATE_TARGET: targets}
            for episode, (images, targets) in zip(self.episodes.__getitems__(indices), beside, strict=True)
        ]

    def _draw(self, index: int) -> tuple[list[int], list[int]]:
        """Draw the images beside an episode, none twice, and a seed for each; another stream than the episode's."""
        random = numbered_random(self.seed, index, stream=1)
        places = random.choice(len(self.unlabeled.image), self.num_unlabeled, replace=False)
        return places.tolist(), random.randint(1 << 31, size=self.num_unlabeled).tolist()
