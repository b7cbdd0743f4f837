# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from monai_fewshot.data.slices.slice_stack import SliceStack
from monai_fewshot.transforms import EpisodeAugmentation
from monai_fewshot.utils import IGNORED

from .episodes import Episodes

__all__ = ["AnnotatedEpisodes", "slices_by_class_and_scan"]


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


def slices_by_class_and_scan(stack: SliceStack, classes: Sequence[int]) -> dict[int, dict[int, np.ndarray]]:
    """List the slices that show a class, by class and scan."""
    present = [set(label.unique().tolist()) for label in stack.label.cpu()]
    found: dict[int, dict[int, list[int]]] = {value: {} for value in classes}
    for index, (values, scan) in enumerate(zip(present, stack.scan.tolist(), strict=True)):
        for value in values & found.keys():
            found[value].setdefault(scan, []).append(index)
    return {value: {s: np.array(places) for s, places in scans.items()} for value, scans in found.items()}
