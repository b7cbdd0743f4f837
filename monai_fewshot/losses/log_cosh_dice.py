# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from monai.utils import LossReduction
from torch.nn.modules.loss import _Loss

__all__ = ["DiceBCELoss", "LogCoshDiceLoss"]


class LogCoshDiceLoss(DiceLoss):
    r"""Dice loss, smoothed where it is small: :math:`\log \cosh (1 - \mathrm{Dice})`.

    With MONAI's Dice of each image and class; ``smooth_nr`` and ``smooth_dr`` are 1 as in the paper.

    Based on: Khadka et al., "Meta-learning with implicit gradients in a few-shot setting for medical image
    segmentation", Computers in Biology and Medicine 2022, equations 3 and 5, https://arxiv.org/abs/2106.03223; Jadon,
    "A survey of loss functions for semantic segmentation", CIBCB 2020, https://arxiv.org/abs/2006.14822.

    Args:
        smooth_nr: added to the numerator.
        smooth_dr: added to the denominator.
        reduction: ``"mean"`` over images and classes, ``"sum"`` of them, or ``"none"``.
        kwargs: further arguments of ``monai.losses.DiceLoss``, such as ``sigmoid=True``.

    Example:
        >>> LogCoshDiceLoss()(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
        tensor(0.)
    """

    def __init__(
        self,
        smooth_nr: float = 1.0,
        smooth_dr: float = 1.0,
        reduction: LossReduction | str = LossReduction.MEAN,
        **kwargs: Any,
    ) -> None:
        super().__init__(smooth_nr=smooth_nr, smooth_dr=smooth_dr, reduction=LossReduction.NONE, **kwargs)
        self.log_cosh_reduction = LossReduction(reduction)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compare a prediction with its target.

        Args:
            input: (B, N, *S).
            target: (B, N, *S).

        Returns:
            A scalar, or what ``DiceLoss`` gives for ``reduction="none"``.
        """
        loss = super().forward(input, target).cosh().log()
        if self.log_cosh_reduction == LossReduction.MEAN:
            return loss.mean()
        return loss.sum() if self.log_cosh_reduction == LossReduction.SUM else loss


class DiceBCELoss(_Loss):
    """A Dice loss plus the binary cross-entropy of each class against the rest.

    Cross-entropy is averaged over all pixels of the batch that count, Dice is that of each image. Pixels of other
    values than background and classes count in neither.

    Based on: Khadka et al., "Meta-learning with implicit gradients in a few-shot setting for medical image
    segmentation", Computers in Biology and Medicine 2022, equations 3 and 4, https://arxiv.org/abs/2106.03223. The
    equation's weight decay is the optimizer's.

    Args:
        dice: takes probabilities and masks (B, N, *S); default :class:`LogCoshDiceLoss`. For plain Dice
            ``monai.losses.DiceLoss(smooth_nr=1, smooth_dr=1)``.
    """

    def __init__(self, dice: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.dice = LogCoshDiceLoss() if dice is None else dice

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compare logits with labels.

        Args:
            input: logits of each class against the rest, (B, N, *S).
            target: (B, 1, *S), 0 background, 1..N the classes, other values are ignored.

        Returns:
            A scalar.

        Raises:
            ValueError: where the shapes do not fit.
        """
        if target.shape != (input.shape[0], 1, *input.shape[2:]):
            raise ValueError(
                f"Logits {tuple(input.shape)} and labels {tuple(target.shape)} differ; labels are (B, 1, *S)."
            )
        logits = input.float() if input.dtype in (torch.half, torch.bfloat16) else input
        classes = torch.arange(1, logits.shape[1] + 1, device=target.device).view(1, -1, *[1] * (logits.ndim - 2))
        masks = (target == classes).to(logits.dtype)
        counted = ((target >= 0) & (target <= logits.shape[1])).to(logits.dtype)
        entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none") * counted
        mean = entropy.sum() / (counted.sum() * logits.shape[1]).clamp(min=1)
        return mean + self.dice(logits.sigmoid() * counted, masks)
