# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from monai.utils import CommonKeys

from monai_fewshot.data.slices.slice_stack import SliceStack
from monai_fewshot.transforms import EpisodeAugmentation, RandExemplarSynthesis, class_centers

from .numbered_samples import NumberedSamples, numbered_random

__all__ = ["ExemplarSamples"]


class ExemplarSamples(NumberedSamples):
    """What a network is trained on from a few annotated slices: an exemplar, synthetic ones, unlabeled ones.

    A sample has P images: an annotated slice, an image synthesized from one, and, where there are, a slice with a
    pseudo-label. Each is augmented with a draw of its own. Sample number i is a function of (seed, i) alone; a data
    loader asks for a batch at once, which is then made on the device of the slices.

    Based on: En and Guo, "Exemplar Learning for Medical Image Segmentation", BMVC 2022, sections 3.1 and 3.3,
    https://arxiv.org/abs/2204.01713.

    Deviation: the paper makes a synthetic data set of unknown size before training; here every one is a new one.

    Args:
        exemplars: annotated slices, which together show all classes.
        length: number of samples.
        synthesis: how synthetic images are made; None for none.
        unlabeled: slices with pseudo-labels; None for none.
        seed: of all draws.
        augmentation: transforms of each image.
        normalize: what is done to images after their augmentation.

    Raises:
        ValueError: where images shall be synthesized and no exemplar shows all classes.
    """

    def __init__(
        self,
        exemplars: SliceStack,
        length: int,
        synthesis: RandExemplarSynthesis | None = None,
        unlabeled: SliceStack | None = None,
        seed: int = 0,
        augmentation: EpisodeAugmentation | None = None,
        normalize: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(length, seed)
        self.exemplars = exemplars
        self.synthesis = synthesis
        self.unlabeled = unlabeled
        self.augmentation = augmentation
        self.normalize = normalize
        self.full, self.centers = ([], []) if synthesis is None else _complete(exemplars, synthesis.num_classes)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Make the samples of a batch.

        Returns:
            For each: ``image`` (P, C, H, W) and ``label`` (P, 1, H, W), exemplar, synthetic and unlabeled.
        """
        randoms = [numbered_random(self.seed, index) for index in indices]
        parts = [self.exemplars.take([random.randint(len(self.exemplars.image)) for random in randoms])]
        if self.synthesis is not None:
            parts.append(self._synthesize(self.synthesis, randoms))
        if self.unlabeled is not None:
            parts.append(self.unlabeled.take([random.randint(len(self.unlabeled.image)) for random in randoms]))
        image = torch.stack([image for image, _ in parts], dim=1)
        label = torch.stack([label.float() for _, label in parts], dim=1)
        if self.augmentation is not None:
            draws = [self.augmentation.draw(random, image.shape[3:]) for random in randoms for _ in parts]
            made = self.augmentation(image.flatten(0, 1), label.flatten(0, 1), draws)
            image, label = (x.unflatten(0, (len(indices), -1)) for x in made)
        if self.normalize is not None:
            image = self.normalize(image.flatten(0, 1)).unflatten(0, (len(indices), -1))
        return [{CommonKeys.IMAGE: i, CommonKeys.LABEL: k} for i, k in zip(image, label, strict=True)]

    def _synthesize(
        self, synthesis: RandExemplarSynthesis, randoms: Sequence[np.random.RandomState]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        size = self.exemplars.image.shape[2:]
        chosen = [random.randint(len(self.full)) for random in randoms]
        pairs = zip(randoms, chosen, strict=True)
        draws = [synthesis.draw(random, size, self.centers[number]) for random, number in pairs]
        image, label = self.exemplars.take([self.full[number] for number in chosen])
        return synthesis.apply(image, label.float(), draws)


def _complete(exemplars: SliceStack, num_classes: int) -> tuple[list[int], list[np.ndarray]]:
    """Find the exemplars that show all classes, and the classes' centers in them."""
    everything = set(range(1, num_classes + 1))
    full = [place for place, label in enumerate(exemplars.label) if everything <= set(label.unique().tolist())]
    if not full:
        raise ValueError(
            f"No exemplar shows all {num_classes} classes, of which instances could be cut: choose one that does."
        )
    return full, [class_centers(exemplars.label[place].cpu(), num_classes) for place in full]
