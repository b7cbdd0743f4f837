# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.modules.loss import _Loss

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

    def forward(self, input: tuple[Any, torch.Tensor], target: Sequence[torch.Tensor]) -> torch.Tensor:
        """Compare both branches with their targets.

        Args:
            input: output of the few-shot branch, and restored intensities (B, U, C, *S) as logits.
            target: labels of query and support, and the original intensities (B, U, C, *S), 0 to 1.

        Returns:
            A scalar.

        Raises:
            ValueError: where restored and original images differ in shape.
        """
        segmented, restored = input
        label, support_label, original = target
        if restored.shape != original.shape:
            raise ValueError(f"Restored images {tuple(restored.shape)} do not fit originals {tuple(original.shape)}.")
        restoration = F.binary_cross_entropy_with_logits(restored.float(), original.float())
        return self.few_shot(segmented, (label, support_label)) + self.weight * restoration
