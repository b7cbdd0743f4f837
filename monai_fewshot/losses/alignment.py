# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.utils import LossReduction
from torch.nn.modules.loss import _Loss

from monai_fewshot.networks.blocks import TrainingOutput, TrainingTarget, repeat_episodes
from monai_fewshot.utils import IGNORED, mean_over_processes

__all__ = ["AlignmentLoss", "EpisodeLoss"]


class AlignmentLoss(_Loss):
    """Prototype alignment: the query with its predicted mask, taken as the support, shall segment the support images.

    For each shot and each class that it shows, the cross-entropy of that class against the background, over the pixels
    of either. A shot that shows no class is compared with the background for all of them. A class whose logits are
    minus infinity, which a network gives where the query's prediction does not show it, costs nothing.

    Based on: Wang et al., "PANet", ICCV 2019, equation 6, https://arxiv.org/abs/1908.06391; Ouyang et al.,
    "Self-supervision with Superpixels", ECCV 2020, equation 8, https://arxiv.org/abs/2007.09886.

    Args:
        reduction: ``"mean"`` over the shots and classes of an episode, then over episodes; ``"sum"`` of them, or
            ``"none"``.
    """

    def __init__(self, reduction: LossReduction | str = LossReduction.MEAN) -> None:
        super().__init__(reduction=LossReduction(reduction).value)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compare the logits of support images with their labels.

        Args:
            input: (B, K, N+1, *S).
            target: (B, K, 1, *S), 0 background, 1..N the classes; other values are ignored.

        Returns:
            A scalar, or (B, K, N) for ``reduction="none"``, 0 for classes that the shot does not show.

        Raises:
            ValueError: where the shapes do not fit.
        """
        if input.shape[:2] != target.shape[:2] or input.shape[3:] != target.shape[3:] or target.shape[2] != 1:
            raise ValueError(f"Logits {tuple(input.shape)} do not fit support labels {tuple(target.shape)}.")
        logits = input.float()
        margin = logits[:, :, 1:] - logits[:, :, :1]
        scored = margin.isfinite()
        classes = torch.arange(1, logits.shape[2], device=logits.device).view(1, 1, -1, *[1] * (logits.ndim - 3))
        is_class = target == classes
        counted = (is_class | (target == 0)) & scored
        loss = F.binary_cross_entropy_with_logits(margin.where(scored, 0), is_class.float(), reduction="none")
        loss = (loss * counted).flatten(3).sum(3) / counted.flatten(3).sum(3).clamp(min=1)
        shown = is_class.flatten(3).any(3)
        compared = shown | ~shown.any(2, keepdim=True)
        loss = loss * compared
        if self.reduction == LossReduction.MEAN:
            return (loss.sum((1, 2)) / compared.sum((1, 2))).mean()
        return loss.sum() if self.reduction == LossReduction.SUM else loss


class EpisodeLoss(_Loss):
    """Segmentation loss on the query plus what else the network returns: alignment on the support, an auxiliary loss.

    The query's cross-entropy is an average over the weighted pixels of the whole batch, so that episodes of larger
    objects count more. In a process group the batch is that of all its processes: the mean of their losses is the loss
    of the global batch, and so are the mean gradients.

    Based on: Ouyang et al., "Self-supervision with Superpixels", ECCV 2020, equations 7 to 9,
    https://arxiv.org/abs/2007.09886.

    Args:
        background_weight: weight of background pixels in the cross-entropy; that of every class is 1.
        alignment_weight: weight of the alignment loss.
        auxiliary_weight: weight of the network's auxiliary loss, such as ADNet's threshold.
        ignore_index: label of query pixels that do not count in the cross-entropy.
        segmentation: compares the query's logits and labels instead of the cross-entropy; for example a loss of MONAI.
    """

    def __init__(
        self,
        background_weight: float = 0.05,
        alignment_weight: float = 1.0,
        auxiliary_weight: float = 1.0,
        ignore_index: int = IGNORED,
        segmentation: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.background_weight = background_weight
        self.alignment_weight = alignment_weight
        self.auxiliary_weight = auxiliary_weight
        self.ignore_index = ignore_index
        self.segmentation = segmentation
        self.alignment = AlignmentLoss()

    def forward(self, input: TrainingOutput, target: TrainingTarget) -> torch.Tensor:
        """Compare what a network returns in training with an episode's labels.

        Args:
            input: the network's.
            target: labels of query and support.

        Returns:
            A scalar.
        """
        compare = self._cross_entropy if self.segmentation is None else self.segmentation
        loss = compare(input.logits, target.label)
        if input.support_logits is not None and self.alignment_weight:
            support_label = repeat_episodes(target.support_label, len(input.support_logits))
            loss = loss + self.alignment_weight * self.alignment(input.support_logits, support_label)
        if input.auxiliary_loss is not None and self.auxiliary_weight:
            loss = loss + self.auxiliary_weight * input.auxiliary_loss
        return loss

    def _cross_entropy(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        label = target[:, 0].long()
        counted = label != self.ignore_index
        weight = torch.where(label > 0, 1.0, self.background_weight) * counted
        loss = F.cross_entropy(logits.float(), label, ignore_index=self.ignore_index, reduction="none")
        return (loss * weight).sum() / mean_over_processes(weight.sum()).clamp(min=1e-5)
