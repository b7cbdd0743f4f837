# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from monai_fewshot.transforms import AugmentationDraw, EpisodeAugmentation
from monai_fewshot.utils import EpisodeKeys

from .slices import SliceStack

__all__ = ["AnnotatedEpisodes", "EpisodeSampler", "Episodes", "PseudoLabelEpisodes"]


class EpisodePlan(NamedTuple):
    """Which slices make an episode: K support slices and, last, the query; and which label values are its classes."""

    slices: list[int]
    values: list[int]
    draws: list[AugmentationDraw | None]


class Episodes(Dataset):
    """Episodes drawn from slices; episode number i is a function of (seed, i) alone.

    Items are single episodes; a data loader asks for a batch at once, which is then cut and augmented together on the
    device of the slices.

    Args:
        stack: the slices with their labels.
        length: number of episodes.
        seed: of all draws.
        augmentation: transforms of each image with a draw of its own; None for none.
        augment_support: whether support images are transformed too, or the query alone.
    """

    def __init__(
        self,
        stack: SliceStack,
        length: int,
        seed: int = 0,
        augmentation: EpisodeAugmentation | None = None,
        augment_support: bool = True,
    ) -> None:
        self.stack = stack
        self.length = length
        self.seed = seed
        self.augmentation = augmentation
        self.augment_support = augment_support

    @abstractmethod
    def draw_slices(self, random: np.random.RandomState) -> tuple[list[int], list[int]]:
        """Draw the K + 1 slices of an episode, the query last, and the label values of its classes 1 to N."""

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return (self[index] for index in range(self.length))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Make the episodes of a batch.

        Returns:
            For each: ``image`` (C, H, W), ``label`` (1, H, W), ``support_image`` (K, C, H, W) and
            ``support_label`` (K, 1, H, W).
        """
        plans = [self._plan(index) for index in indices]
        image, label = self.stack.take([s for plan in plans for s in plan.slices])
        values = torch.tensor([plan.values for plan in plans for _ in plan.slices])
        label = self._cut(label, values.to(label.device, non_blocking=True))
        if self.augmentation is not None:
            image, label = self._augment(image, label, [draw for plan in plans for draw in plan.draws])
        images, labels = (x.unflatten(0, (len(plans), -1)) for x in (image, label))
        return [
            {
                EpisodeKeys.IMAGE: image[-1],
                EpisodeKeys.LABEL: label[-1],
                EpisodeKeys.SUPPORT_IMAGE: image[:-1],
                EpisodeKeys.SUPPORT_LABEL: label[:-1],
            }
            for image, label in zip(images, labels, strict=True)
        ]

    def _plan(self, index: int) -> EpisodePlan:
        random = np.random.RandomState(np.random.Philox(key=np.array([self.seed, index], dtype=np.uint64)))
        slices, values = self.draw_slices(random)
        draws: list[AugmentationDraw | None] = [None] * len(slices)
        if self.augmentation is not None:
            size = self.stack.image.shape[2:]
            first = 0 if self.augment_support else len(slices) - 1
            draws[first:] = [self.augmentation.draw(random, size) for _ in slices[first:]]
        return EpisodePlan(slices, values, draws)

    def _augment(
        self, image: torch.Tensor, label: torch.Tensor, draws: list[AugmentationDraw | None]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = [i for i, draw in enumerate(draws) if draw is not None]
        assert self.augmentation is not None
        image[chosen], label[chosen] = self.augmentation(
            image[chosen], label[chosen], [draw for draw in draws if draw is not None]
        )
        return image, label

    @staticmethod
    def _cut(label: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Number the values (B, N) of labels (B, 1, H, W) from 1 to N; all else becomes background."""
        classes = torch.arange(1, values.shape[1] + 1, device=label.device).view(1, -1, 1, 1)
        return ((label == values[:, :, None, None]) * classes).sum(1, keepdim=True).float()


class PseudoLabelEpisodes(Episodes):
    """Self-supervised episodes: a random pseudo-label of a random slice, which is support and query in one.

    Support and query differ by their augmentation. Every value that occurs in a slice can be drawn, and no other.

    Based on: Ouyang et al., "Self-supervision with Superpixels", ECCV 2020, section 3.3,
    https://arxiv.org/abs/2007.09886.

    Deviation: the paper transforms the query alone, its implementation both; the latter is the default here.

    Args:
        stack: slices with integer maps of pseudo-labels, 0 where there is none.
        length: number of episodes.
        shots: number of support images K.
        seed: of all draws.
        augmentation: transforms of each image.
        augment_support: whether support images are transformed too, or the query alone.

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
    ) -> None:
        super().__init__(stack, length, seed, augmentation, augment_support)
        self.shots = shots
        present = [label.unique().tolist() for label in stack.label.cpu()]
        self.choices = [(s, [v for v in values if v > 0]) for s, values in enumerate(present) if max(values) > 0]
        if not self.choices:
            raise ValueError("No slice has a pseudo-label: is the foreground mask of every slice empty?")

    def draw_slices(self, random: np.random.RandomState) -> tuple[list[int], list[int]]:
        """Draw a slice, and one of the pseudo-labels in it."""
        index, values = self.choices[random.randint(len(self.choices))]
        return [index] * (self.shots + 1), [values[random.randint(len(values))]]


class AnnotatedEpisodes(Episodes):
    """Episodes of annotated classes: N-way K-shot, support and query from different scans.

    An N-way K-shot episode has N x K support images, K that show the first class, K the second and so on; each is
    labeled with all N classes. The query shows one of them at least.

    Args:
        stack: slices with label maps.
        length: number of episodes.
        classes: label values that classes are drawn from.
        ways: number of classes N in an episode.
        shots: number of support images a class.
        seed: of all draws.
        augmentation: transforms of each image.
        augment_support: whether support images are transformed too, or the query alone.

    Raises:
        ValueError: where there are fewer classes than ways, or a class shows in fewer than two scans.
    """

    def __init__(
        self,
        stack: SliceStack,
        length: int,
        classes: Sequence[int],
        ways: int = 1,
        shots: int = 1,
        seed: int = 0,
        augmentation: EpisodeAugmentation | None = None,
        augment_support: bool = True,
    ) -> None:
        super().__init__(stack, length, seed, augmentation, augment_support)
        if not 1 <= ways <= len(classes):
            raise ValueError(f"{ways}-way episodes need as many classes, got {list(classes)}.")
        self.ways = ways
        self.shots = shots
        scans = stack.scan.numpy()
        self.slices: dict[int, dict[int, np.ndarray]] = {}
        for value in classes:
            holds = (stack.label == value).flatten(1).any(1).cpu().numpy()
            self.slices[value] = {int(s): np.flatnonzero(holds & (scans == s)) for s in np.unique(scans[holds])}
            if len(self.slices[value]) < 2:
                raise ValueError(
                    f"Class {value} shows in {len(self.slices[value])} training scan(s); support and query come from "
                    "different scans, so two are needed. Leave it out of classes, or give more scans."
                )

    def draw_slices(self, random: np.random.RandomState) -> tuple[list[int], list[int]]:
        """Draw classes, a query scan that shows one of them, and support slices from other scans."""
        values = random.choice(list(self.slices), self.ways, replace=False).tolist()
        of_query = self.slices[values[random.randint(self.ways)]]
        query_scan = random.choice(list(of_query))
        support = [self._support_slice(random, value, query_scan) for value in values for _ in range(self.shots)]
        return [*support, int(random.choice(of_query[query_scan]))], values

    def _support_slice(self, random: np.random.RandomState, value: int, query_scan: int) -> int:
        scans = [s for s in self.slices[value] if s != query_scan]
        return int(random.choice(self.slices[value][random.choice(scans)]))


class EpisodeSampler(DistributedSampler):
    """Numbers of the episodes of each training epoch: consecutive, never repeated, dealt out over ranks.

    MONAI's engines tell a distributed sampler the epoch, so a resumed training goes on where it stopped.

    Args:
        dataset: episodes; their number is that of an epoch.
        num_replicas: number of processes, by default that of the process group, or 1.
        rank: of this process, by default in the process group, or 0.
    """

    def __init__(self, dataset: Episodes, num_replicas: int | None = None, rank: int | None = None) -> None:
        if num_replicas is None and not torch.distributed.is_initialized():
            num_replicas, rank = 1, 0
        super().__init__(dataset, num_replicas, rank, shuffle=False, drop_last=True)

    def __iter__(self) -> Iterator[int]:
        start = max(self.epoch - 1, 0) * self.total_size
        return iter(range(start + self.rank, start + self.total_size, self.num_replicas))
