# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import list_data_collate

from monai_fewshot.data.slices.slice_stack import SliceStack
from monai_fewshot.transforms import AugmentationDraw, EpisodeAugmentation
from monai_fewshot.utils import EpisodeKeys, device_tensor

from .numbered_samples import NumberedSamples, numbered_random

__all__ = ["Episodes", "collate_episodes"]


class EpisodePlan(NamedTuple):
    """What makes an episode: K support slices and, last, the query; how to label them; how to transform them."""

    slices: list[int]
    labeling: Any
    augmentation: list[AugmentationDraw | None]


class Episodes(NumberedSamples):
    """Episodes drawn from slices; episode number i is a function of (seed, i) alone.

    Items are single episodes; a data loader asks for a batch at once, which is then cut and augmented together on the
    device of the slices.

    Args:
        stack: the slices with their labels.
        length: number of episodes.
        seed: of all draws.
        augmentation: transforms of each image with a draw of its own; None for none.
        augment_support: whether support images are transformed too, or the query alone.
        normalize: what is done to images (B, C, H, W) after their augmentation, such as
            :class:`~monai_fewshot.transforms.NormalizeChannels`; None for nothing.
    """

    def __init__(
        self,
        stack: SliceStack,
        length: int,
        seed: int = 0,
        augmentation: EpisodeAugmentation | None = None,
        augment_support: bool = True,
        normalize: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(length, seed)
        self.stack = stack
        self.augmentation = augmentation
        self.augment_support = augment_support
        self.normalize = normalize

    @abstractmethod
    def draw_slices(self, random: np.random.RandomState) -> tuple[list[int], Any]:
        """Draw the K + 1 slices of an episode, the query last, and how :meth:`cut` labels them."""

    def cut(self, label: torch.Tensor, draws: Sequence[Any]) -> torch.Tensor:
        """Make the labels of a batch of episodes, before augmentation; here each draw lists the values of the classes.

        Args:
            label: labels of the slices, (B, K+1, 1, H, W).
            draws: B draws of :meth:`draw_slices`.

        Returns:
            (B, K+1, 1, H, W), floating point, 0 background, 1..N the classes.
        """
        values = device_tensor(draws, label.device)
        classes = torch.arange(1, values.shape[1] + 1, device=label.device).view(1, 1, -1, 1, 1)
        return ((label == values[:, None, :, None, None]) * classes).sum(2, keepdim=True).float()

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Make the episodes of a batch.

        Returns:
            For each: ``image`` (C, H, W), ``label`` (1, H, W), ``support_image`` (K, C, H, W) and
            ``support_label`` (K, 1, H, W).
        """
        plans = [self.plan(index) for index in indices]
        image, label = self.stack.take([s for plan in plans for s in plan.slices])
        label = self.cut(label.unflatten(0, (len(plans), -1)), [plan.labeling for plan in plans]).flatten(0, 1)
        if self.augmentation is not None:
            image, label = self._augment(image, label, [draw for plan in plans for draw in plan.augmentation])
        if self.normalize is not None:
            image = self.normalize(image)
        images, labels = (x.unflatten(0, (len(plans), -1)) for x in (image, label))
        return [self.item(*parts) for parts in zip(indices, images, labels, strict=True)]

    def item(self, index: int, image: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
        """Name the parts of episode number ``index``, whose K + 1 images and labels are given, the query last."""
        return {
            EpisodeKeys.IMAGE: image[-1],
            EpisodeKeys.LABEL: label[-1],
            EpisodeKeys.SUPPORT_IMAGE: image[:-1],
            EpisodeKeys.SUPPORT_LABEL: label[:-1],
        }

    def plan(self, index: int) -> EpisodePlan:
        """Draw what makes episode number ``index``, without making it."""
        random = numbered_random(self.seed, index)
        slices, labeling = self.draw_slices(random)
        draws: list[AugmentationDraw | None] = [None] * len(slices)
        if self.augmentation is not None:
            size = self.stack.image.shape[2:]
            first = 0 if self.augment_support else len(slices) - 1
            draws[first:] = [self.augmentation.draw(random, size) for _ in slices[first:]]
        return EpisodePlan(slices, labeling, draws)

    def _augment(
        self, image: torch.Tensor, label: torch.Tensor, draws: list[AugmentationDraw | None]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.augmentation is not None
        drawn = [draw for draw in draws if draw is not None]
        if len(drawn) == len(draws):
            return self.augmentation(image, label, drawn)
        chosen = device_tensor([i for i, draw in enumerate(draws) if draw is not None], image.device)
        augmented = self.augmentation(image[chosen], label[chosen], drawn)
        return image.index_copy(0, chosen, augmented[0]), label.index_copy(0, chosen, augmented[1])


def collate_episodes(episodes: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Make a batch of E episodes, as ``collate_fn`` of a data loader.

    Args:
        episodes: of one query each, (C, H, W), or of Q queries, (Q, C, H, W), as meta-learning tasks have them.

    Returns:
        Supports by episode, (E, K, ...), and the B queries of all episodes in a row, (B, ...).
    """
    batch = list_data_collate(episodes)
    support = batch.get(EpisodeKeys.SUPPORT_IMAGE)
    if support is not None and batch[EpisodeKeys.IMAGE].ndim == support.ndim:
        batch |= {key: batch[key].flatten(0, 1) for key in (EpisodeKeys.IMAGE, EpisodeKeys.LABEL)}
    return batch
