# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import list_data_collate

from monai_fewshot.data.scans.slices import SliceStack
from monai_fewshot.transforms import AugmentationDraw, EpisodeAugmentation
from monai_fewshot.utils import IGNORED, EpisodeKeys, device_tensor

from .numbered_samples import NumberedSamples, numbered_random

__all__ = ["AnnotatedEpisodes", "Episodes", "PseudoLabelEpisodes", "collate_episodes"]


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


class AnnotatedEpisodes(Episodes):
    """Episodes of annotated classes: N-way K-shot, support and query from different scans.

    An N-way K-shot episode has N x K support images, K that show the first class, K the second and so on; each is
    labeled with all N classes. The query shows one of them at least. A class's K images are of different scans where
    there are as many, and pixels labeled 255 are ignored.

    Args:
        stack: slices with label maps.
        length: number of episodes.
        classes: label values that classes are drawn from.
        ways: number of classes N in an episode.
        shots: number of support images a class.
        seed: of all draws.
        augmentation: transforms of each image.
        augment_support: whether support images are transformed too, or the query alone.
        normalize: what is done to images after their augmentation.

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
        normalize: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(stack, length, seed, augmentation, augment_support, normalize)
        if not 1 <= ways <= len(classes):
            raise ValueError(f"{ways}-way episodes need as many classes, got {list(classes)}.")
        self.ways = ways
        self.shots = shots
        self.slices = slices_by_class_and_scan(stack, classes)
        few = {value: len(scans) for value, scans in self.slices.items() if len(scans) < 2}
        if few:
            shown = ", ".join(f"{value} in {count}" for value, count in list(few.items())[:10])
            raise ValueError(
                f"Classes that show in fewer than two training scans: {shown}. Support and query come from different "
                "scans: leave these classes out, or give more scans."
            )

    def draw_slices(self, random: np.random.RandomState) -> tuple[list[int], list[int]]:
        """Draw classes, a query scan that shows one of them, and support slices from other scans."""
        values = random.choice(list(self.slices), self.ways, replace=False).tolist()
        of_query = self.slices[values[random.randint(self.ways)]]
        query_scan = random.choice(list(of_query))
        support = [place for value in values for place in self._support_slices(random, value, query_scan)]
        return [*support, int(random.choice(of_query[query_scan]))], values

    def cut(self, label: torch.Tensor, draws: Sequence[Any]) -> torch.Tensor:
        """Number the classes of each episode from 1; pixels that are ignored stay so."""
        return super().cut(label, draws).masked_fill_(label == IGNORED, IGNORED)

    def _support_slices(self, random: np.random.RandomState, value: int, query_scan: int) -> list[int]:
        others = [s for s in self.slices[value] if s != query_scan]
        chosen = random.choice(others, self.shots, replace=len(others) < self.shots)
        return [int(random.choice(self.slices[value][scan])) for scan in chosen]


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


def slices_by_class_and_scan(stack: SliceStack, classes: Sequence[int]) -> dict[int, dict[int, np.ndarray]]:
    """List the slices that show a class, by class and scan."""
    present = [set(label.unique().tolist()) for label in stack.label.cpu()]
    found: dict[int, dict[int, list[int]]] = {value: {} for value in classes}
    for index, (values, scan) in enumerate(zip(present, stack.scan.tolist(), strict=True)):
        for value in values & found.keys():
            found[value].setdefault(scan, []).append(index)
    return {value: {s: np.array(places) for s, places in scans.items()} for value, scans in found.items()}


def _values_of_size(label: torch.Tensor, min_pixels: int) -> list[int]:
    values, counts = label.unique(return_counts=True)
    return values[(values > 0) & (counts >= min_pixels)].tolist()
