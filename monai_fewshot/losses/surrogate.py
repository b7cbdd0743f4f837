# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.nn.modules.loss import _Loss

from monai_fewshot.networks.blocks import TrainingOutput, TrainingTarget

__all__ = ["SurrogateLoss"]


class SurrogateLoss(_Loss):
    r"""Few-shot segmentation loss plus the cross-entropy between restored and original intensities.

    .. math::
        L = L_{few} - \lambda \, \mathrm{mean} \left( x \log \hat{x} + (1 - x) \log (1 - \hat{x}) \right)

    Based on: Feyjie et al., "Semi-supervised few-shot learning for medical image segmentation", 2020, equations 2 and
    3, https://arxiv.org/abs/2003.08462.

    Deviation: equation 2 has the term of x alone, which an image of ones minimizes whatever x is; with the other term
    the minimum is the original. It is averaged over pixels and channels, where the equation adds, so that the weight
    does not depend on the image's size.

    Args:
        few_shot: loss of the few-shot branch, such as :class:`~monai_fewshot.losses.EpisodeLoss`.
        weight: of the restoration, lambda.
    """

    def __init__(self, few_shot: torch.nn.Module, weight: float = 1.0) -> None:
        super().__init__()
        self.few_shot = few_shot
        self.weight = weight

    def forward(self, input: TrainingOutput, target: TrainingTarget) -> torch.Tensor:
        """Compare both branches with their targets.

        Args:
            input: the network's, with a reconstruction.
            target: the episodes', with the originals.

        Returns:
            A scalar.

        Raises:
            ValueError: where restored or original images are missing, or differ in shape.
        """
        restored, original = input.reconstruction, target.reconstruction
        if restored is None or original is None or restored.shape != original.shape:
            shapes = [None if x is None else tuple(x.shape) for x in (restored, original)]
            raise ValueError(f"Restored images {shapes[0]} do not fit originals {shapes[1]}.")
        restoration = F.binary_cross_entropy_with_logits(restored.float(), original.float())
        return self.few_shot(input, target) + self.weight * restoration
