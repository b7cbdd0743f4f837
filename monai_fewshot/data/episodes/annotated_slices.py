# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.utils import CommonKeys

from monai_fewshot.data.scans.slices import SliceStack
from monai_fewshot.transforms import EpisodeAugmentation

from .numbered_samples import NumberedSamples, numbered_random

__all__ = ["AnnotatedSlices"]


class AnnotatedSlices(NumberedSamples):
    """Annotated slices to train a segmentation network on; every second one shows a class.

    Organs show in few slices of a scan, but a network that saw no others would find them everywhere. Samples of even
    number are drawn from the slices that show any class, those of odd number from the others, where there are any.
    Sample number i is a function of (seed, i) alone; a data loader asks for a batch at once, which is then made on the
    device of the slices.

    Args:
        stack: slices with label maps, 0 background, 1..N the classes.
        length: number of samples.
        num_classes: number of classes N.
        seed: of all draws.
        augmentation: transforms of each image; None for none.

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
    ) -> None:
        super().__init__(length, seed)
        missing = sorted({*range(1, num_classes + 1)} - {*stack.label.unique().tolist()})
        if missing:
            raise ValueError(
                f"No annotated slice shows class {', '.join(map(str, missing))} of 1 to {num_classes}: a network "
                "cannot learn what no example shows. Annotate it, take another scan, or leave the class out by classes."
            )
        self.stack = stack
        self.augmentation = augmentation
        class_present = (stack.label > 0).flatten(1).any(1).cpu()
        showing, others = (kind.nonzero().flatten().tolist() for kind in (class_present, ~class_present))
        self.kinds = (showing, others or showing)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Make the samples of a batch.

        Returns:
            For each: ``image`` (C, H, W) and ``label`` (1, H, W), floating point.
        """
        randoms = [numbered_random(self.seed, index) for index in indices]
        kinds = [self.kinds[index % 2] for index in indices]
        image, label = self.stack.take([k[r.randint(len(k))] for k, r in zip(kinds, randoms, strict=True)])
        label = label.float()
        if self.augmentation is not None:
            draws = [self.augmentation.draw(random, image.shape[2:]) for random in randoms]
            image, label = self.augmentation(image, label, draws)
        return [{CommonKeys.IMAGE: i, CommonKeys.LABEL: k} for i, k in zip(image, label, strict=True)]
