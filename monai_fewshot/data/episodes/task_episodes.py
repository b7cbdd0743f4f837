# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.utils import StrEnum

from monai_fewshot.data.slices.slice_stack import SliceStack
from monai_fewshot.transforms import EpisodeAugmentation
from monai_fewshot.utils import IGNORED, EpisodeKeys, device_tensor

from .annotated_episodes import slices_by_class_and_scan
from .episodes import Episodes

__all__ = ["TaskEpisodes", "TaskPools"]


class TaskPools(StrEnum):
    """Which pools a task's images are of: of one, ``EXCLUSIVE``, or of several, ``MIXED``."""

    EXCLUSIVE = "exclusive"
    MIXED = "mixed"


class TaskEpisodes(Episodes):
    """Meta-learning tasks: what a network is adapted to, and several queries that judge the adapted network.

    A pool is what the paper calls a way: the images that show one kind of thing, such as the polyps of one data set and
    the lesions of another, or one organ's slices. It has a label value of its own; in a task it is foreground, 1. An
    exclusive task has K support images and Q queries of one pool, a mixed one as many of each of several pools. Images
    of a pool are of different scans, and a task's supports and queries too: where scans show several pools, and a pool
    shows in too few others, a query may be of a scan that is the support of another pool. A data loader needs
    :func:`collate_episodes`, which makes batches of E supports for B queries of tasks.

    Based on: Khadka et al., "Meta-learning with implicit gradients in a few-shot setting for medical image
    segmentation", Computers in Biology and Medicine 2022, section 4.1, https://arxiv.org/abs/2106.03223.

    Args:
        stack: slices with label maps.
        length: number of tasks.
        pools: label values of the pools.
        shots: number of support images a pool.
        queries: number of query images a pool; default as many as shots.
        composition: whether tasks are exclusive or mixed.
        ways: pools of a mixed task; default all.
        seed: of all draws.
        augmentation: transforms of each image.
        normalize: what is done to images after their augmentation.

    Raises:
        ValueError: where a pool has fewer scans than a task has images of it, or there are fewer pools than ways.
    """

    def __init__(
        self,
        stack: SliceStack,
        length: int,
        pools: Sequence[int],
        shots: int = 5,
        queries: int | None = None,
        composition: TaskPools | str = TaskPools.EXCLUSIVE,
        ways: int | None = None,
        seed: int = 0,
        augmentation: EpisodeAugmentation | None = None,
        normalize: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(stack, length, seed, augmentation, normalize=normalize)
        self.shots = shots
        self.queries = shots if queries is None else queries
        mixed = TaskPools(composition) == TaskPools.MIXED
        self.ways = (len(pools) if ways is None else ways) if mixed else 1
        if not 1 <= self.ways <= len(pools) or shots < 1 or self.queries < 1:
            raise ValueError(
                f"Tasks of {self.ways} pool(s), {shots} shot(s) and {self.queries} queries cannot be drawn from pools "
                f"{list(pools)}: give one pool, shot and query at least, and no more ways than pools."
            )
        self.slices = slices_by_class_and_scan(stack, pools)
        needed = shots + self.queries
        few = [f"{value} has {len(scans)}" for value, scans in self.slices.items() if len(scans) < needed]
        if few:
            raise ValueError(
                f"Tasks of {shots} shots and {self.queries} queries need {needed} annotated images, or scans, that "
                f"show a class; of the classes {', '.join(few[:10])}. Annotate more, leave these classes out, or ask "
                "for fewer shots or queries."
            )

    def draw_slices(self, random: np.random.RandomState) -> tuple[list[int], list[int]]:
        """Draw pools, and of each its support slices and queries; supports of all pools first."""
        values = random.choice(list(self.slices), self.ways, replace=False).tolist()
        supports, queries = set[int](), set[int]()
        drawn = [self._of_pool(random, value, supports, queries) for value in values]
        support = [place for places in drawn for place in places[: self.shots]]
        query = [place for places in drawn for place in places[self.shots :]]
        return [*support, *query], [*np.repeat(values, self.shots), *np.repeat(values, self.queries)]

    def cut(self, label: torch.Tensor, draws: Sequence[Any]) -> torch.Tensor:
        """Mark of each slice what it was drawn for, 1; pixels that are ignored stay so."""
        values = device_tensor(np.array(draws), label.device)
        marked = (label == values[:, :, None, None, None]).float()
        return marked.masked_fill_(label == IGNORED, IGNORED)

    def item(self, index: int, image: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
        """Tell supports from queries, and number the task."""
        supports = self.ways * self.shots
        return {
            EpisodeKeys.IMAGE: image[supports:],
            EpisodeKeys.LABEL: label[supports:],
            EpisodeKeys.SUPPORT_IMAGE: image[:supports],
            EpisodeKeys.SUPPORT_LABEL: label[:supports],
            EpisodeKeys.NUMBER: torch.tensor(index),
        }

    def _of_pool(self, random: np.random.RandomState, value: int, supports: set[int], queries: set[int]) -> list[int]:
        """Draw slices of a pool, supports first; scans of the task's other supports and queries are taken note of."""
        scans = self.slices[value]
        order = random.choice(list(scans), len(scans), replace=False).tolist()
        support = sorted(order, key=queries.__contains__)[: self.shots]
        supports.update(support)
        rest = [scan for scan in order if scan not in support]
        query = sorted(rest, key=supports.__contains__)[: self.queries]
        queries.update(query)
        return [int(random.choice(scans[scan])) for scan in (*support, *query)]
