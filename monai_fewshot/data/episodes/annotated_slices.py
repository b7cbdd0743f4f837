# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from monai.utils import CommonKeys

from monai_fewshot.data.slices.slice_stack import SliceStack
from monai_fewshot.transforms import ClassIntensity, EpisodeAugmentation

from .numbered_samples import NumberedSamples, numbered_random

__all__ = ["AnnotatedSlices", "SliceChoice", "choose_annotated"]

SLICES_AT_A_TIME = 256
SliceChoice = int | str | Sequence[int] | None
"""Which slices of a scan are annotated, see :func:`choose_annotated`."""


class AnnotatedSlices(NumberedSamples):
    """Annotated slices to train a segmentation network on.

    Organs show in few slices of a scan, but a network that saw no others would find them everywhere. So every second
    sample, those of odd number, is drawn from the slices that show no class, where there are any; the others from those
    that show any. Balanced, the classes are shown in turn, so that an organ of few slices is seen as often as
    a large one, and after every third class, and the last, comes a slice that shows none.

    Sample number i is a function of (seed, i) alone; a data loader asks for a batch at once, which is then made on the
    device of the slices.

    Args:
        stack: slices with label maps, 0 background, 1..N the classes.
        length: number of samples.
        num_classes: number of classes N.
        seed: of all draws.
        augmentation: transforms of each image; None for none.
        balanced: whether classes are shown in turn.
        class_intensity: changes the contrast between classes, before all else; None for none.

    Raises:
        ValueError: where a class shows in no slice.
    """

    def __init__(
        self,
        stack: SliceStack,
        length: int,
        num_classes: int,
        seed: int = 0,
        augmentation: EpisodeAugmentation | None = None,
        balanced: bool = False,
        class_intensity: ClassIntensity | None = None,
    ) -> None:
        super().__init__(length, seed)
        self.pixels = _pixels_of_classes(stack, num_classes)
        missing = (1 + (self.pixels[:, 1:].sum(0) == 0).nonzero().flatten()).tolist()
        if missing:
            raise ValueError(
                f"No annotated slice shows class {', '.join(map(str, missing))} of 1 to {num_classes}: a network "
                "cannot learn what no example shows. Annotate it, take another scan, or leave the class out by classes."
            )
        self.stack = stack
        self.num_classes = num_classes
        self.augmentation = augmentation
        self.class_intensity = class_intensity
        shown = self.pixels[:, 1:] > 0
        *of_class, others = (kind.nonzero().flatten().tolist() for kind in (*shown.T, ~shown.any(1)))
        showing = sorted(set().union(*of_class))
        self.kinds = [showing, others or showing]
        if balanced:
            self.kinds = []
            for number, kind in enumerate(of_class, 1):
                self.kinds.append(kind)
                if number % 3 == 0 or number == num_classes:
                    self.kinds.append(others or showing)

    def class_weights(self, power: float = 0.5) -> torch.Tensor:
        """Weigh classes by how rare their pixels are, so that small ones are found early.

        Args:
            power: weights are shares of the pixels to the power of minus this; 0 for equal weights.

        Returns:
            (N+1,), background first, with a mean of 1 over the pixels; on the device where samples are made.
        """
        counts = self.pixels.sum(0).float()
        weights = counts.clamp(min=1).pow(-power)
        weights = weights * counts.sum() / (weights * counts).sum()
        return weights if self.stack.device is None else weights.to(self.stack.device)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Make the samples of a batch.

        Returns:
            For each: ``image`` (C, H, W) and ``label`` (1, H, W), floating point.
        """
        randoms = [numbered_random(self.seed, index) for index in indices]
        kinds = [self.kinds[index % len(self.kinds)] for index in indices]
        image, label = self.stack.take([k[r.randint(len(k))] for k, r in zip(kinds, randoms, strict=True)])
        label = label.float()
        if self.class_intensity is not None:
            changes = [self.class_intensity.draw(random, self.num_classes) for random in randoms]
            image = self.class_intensity.apply(image, label, changes)
        if self.augmentation is not None:
            draws = [self.augmentation.draw(random, image.shape[2:]) for random in randoms]
            image, label = self.augmentation(image, label, draws)
        return [{CommonKeys.IMAGE: i, CommonKeys.LABEL: k} for i, k in zip(image, label, strict=True)]


def choose_annotated(
    stack: SliceStack, chosen: int | str | Sequence[int] | Sequence[SliceChoice] | None = None
) -> list[int]:
    """Tell which slices of annotated scans are annotated; of the others nothing is known.

    Args:
        stack: all slices of the annotated scans.
        chosen: None for all of them; a number n for every n-th of a scan, from the middle of the first n on; "labeled"
            for those that show a class; numbers of slices of the one annotated scan, from 0; or a list of such choices,
            one a scan, of which at least one is None or a list.

    Returns:
        Numbers of slices in the stack, ascending.

    Raises:
        ValueError: where there is no such slice, or none is left.
    """
    scans = [(stack.scan == number).nonzero().flatten().tolist() for number in stack.scan.unique()]
    shown = (stack.label > 0).flatten(1).any(1).tolist()
    if isinstance(chosen, (list, tuple)):
        of_scans = any(part is None or isinstance(part, (list, tuple)) for part in chosen)
        choices = list(chosen) if of_scans else [list(chosen)]
        if len(choices) != len(scans):
            raise ValueError(f"annotated_slices lists slices of {len(choices)} scans, but {len(scans)} are annotated.")
    else:
        choices = [chosen] * len(scans)
    known = [_chosen_of_scan(slices, choice, shown) for slices, choice in zip(scans, choices, strict=True)]
    if not any(known):
        raise ValueError(f"annotated_slices is {chosen!r}, which leaves no slice: name slices that show a class.")
    return sorted(chain.from_iterable(known))


def _chosen_of_scan(slices: Sequence[int], chosen: SliceChoice, shown: Sequence[bool]) -> list[int]:
    """Numbers in the stack of the annotated slices of one scan, whose slices these are."""
    if chosen is None:
        return list(slices)
    if chosen == "labeled":
        return [place for place in slices if shown[place]]
    if isinstance(chosen, int) and chosen > 0:
        return list(slices[(min(chosen, len(slices)) - 1) // 2 :: chosen])
    if isinstance(chosen, (list, tuple)):
        absent = [number for number in chosen if number not in range(len(slices))]
        if absent:
            raise ValueError(f"annotated_slices: no slices {absent}, the scan has 0 to {len(slices) - 1}.")
        return [slices[number] for number in chosen]
    raise ValueError(
        f"annotated_slices is {chosen!r}: give a number n for every n-th slice, a list of numbers, or 'labeled'."
    )


def _pixels_of_classes(stack: SliceStack, num_classes: int) -> torch.Tensor:
    """Count the pixels of background and classes, (S, N+1), a few slices at a time, for labels may lie on a disk."""
    parts = stack.label.flatten(1).split(SLICES_AT_A_TIME)
    return torch.cat([torch.stack([(part == value).sum(1) for value in range(num_classes + 1)], 1) for part in parts])
