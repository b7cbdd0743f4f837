# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.utils import CommonKeys

from monai_fewshot.data.slices.slice_stack import SliceStack
from monai_fewshot.transforms import BoxPaste, EpisodeAugmentation

from .numbered_samples import NumberedSamples, numbered_random

__all__ = ["UnlabeledSlices"]


class UnlabeledSlices(NumberedSamples):
    """Slices that nobody has annotated, in a weakly and a strongly transformed form, to learn from a teacher.

    The teacher labels the weak form; the student has to find the same in the strong one, into which a box of another
    slice is pasted. Both forms lie alike: only intensities differ. Sample number i is a function of (seed, i) alone; a
    data loader asks for a batch at once, which is then made on the device of the slices.

    Based on: Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence", NeurIPS
    2020, https://arxiv.org/abs/2001.07685, and Yang et al., "Revisiting Weak-to-Strong Consistency in Semi-Supervised
    Semantic Segmentation" (UniMatch), CVPR 2023, https://arxiv.org/abs/2208.09910.

    Args:
        stack: the slices. Their labels, if any are known, are first ones that may be wrong.
        length: number of samples.
        weak: transforms of both forms; None for none.
        strong: further transforms of the strong form, of intensities alone; None for none.
        mix: draws the boxes to be pasted; None for none.
        seed: of all draws.
    """

    def __init__(
        self,
        stack: SliceStack,
        length: int,
        weak: EpisodeAugmentation | None = None,
        strong: EpisodeAugmentation | None = None,
        mix: BoxPaste | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(length, seed)
        if strong is not None and strong.geometry is not None:
            raise ValueError("strong moves pixels, so that the teacher's labels would not fit: give weak the geometry.")
        self.stack = stack
        self.weak = weak
        self.strong = strong
        self.mix = mix

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Make the samples of a batch.

        Returns:
            For each: ``image`` and ``strong_image`` (C, H, W), ``label`` (1, H, W), floating point, and ``pasted``
            (1, H, W), boolean: where the box lies.
        """
        randoms = [numbered_random(self.seed, index, stream=1) for index in indices]
        weak, label = self.stack.take([random.randint(len(self.stack.image)) for random in randoms])
        label = label.float()
        size = weak.shape[2:]
        if self.weak is not None:
            weak, label = self.weak(weak, label, [self.weak.draw(random, size) for random in randoms])
        strong = weak
        if self.strong is not None:
            strong, _ = self.strong(weak, label, [self.strong.draw(random, size) for random in randoms])
        pasted = torch.zeros(len(indices), 1, *size, dtype=torch.bool, device=weak.device)
        if self.mix is not None:
            pasted = self.mix.inside([self.mix.draw(random, size) for random in randoms], size, weak.device)
        keys = (CommonKeys.IMAGE, CommonKeys.LABEL, "strong_image", "pasted")
        return [dict(zip(keys, parts, strict=True)) for parts in zip(weak, label, strong, pasted, strict=True)]
