# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch.nn.modules.loss import _Loss

from monai_fewshot.networks.blocks import TrainingOutput, class_masks
from monai_fewshot.utils import IGNORED, mean_over_processes, num_processes

from .prototype_contrast import PrototypeContrastLoss

__all__ = ["ClassLoss", "ExemplarLoss"]


class ClassLoss(_Loss):
    """Half the cross-entropy plus half the Dice loss, over the pixels that count.

    MONAI's ``DiceCELoss`` has no label for pixels of which nothing is known. In a process group the mean over the
    processes, which all have to compute it, is the loss of their global batch.

    Based on: En and Guo, "Exemplar Learning for Medical Image Segmentation", BMVC 2022, equation 7,
    https://arxiv.org/abs/2204.01713.

    Args:
        ignore_index: label of pixels that do not count.
    """

    def __init__(self, ignore_index: int = IGNORED) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.dice = DiceLoss(include_background=False)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compare logits with labels.

        Args:
            input: (B, N+1, *S), background first.
            target: (B, 1, *S), 0 background, 1..N the classes.

        Returns:
            A scalar; 0 with a graph where no pixel counts.
        """
        logits, label = input.float(), target[:, 0].long()
        counted = label != self.ignore_index
        entropy = F.cross_entropy(logits, label, ignore_index=self.ignore_index, reduction="sum")
        probabilities = logits.softmax(1) * counted.unsqueeze(1)
        masks = class_masks(target.masked_fill(~counted.unsqueeze(1), -1), logits.shape[1] - 1)
        count = mean_over_processes(counted.sum()).clamp(min=1 / num_processes())
        return 0.5 * entropy / count + 0.5 * self.dice(probabilities, masks)


class ExemplarLoss(_Loss):
    r"""Joint loss of exemplar, synthetic and unlabeled images, and of the contrast of their prototypes.

    .. math::
        L = L_e + \lambda_s L_s + \lambda_u L_u + \lambda_c L_c

    Based on: En and Guo, "Exemplar Learning for Medical Image Segmentation", BMVC 2022, equations 6 to 8,
    https://arxiv.org/abs/2204.01713. The paper does not give the weights.

    Args:
        weights: of the segmentation losses, in the order of a sample's images
            (:class:`~monai_fewshot.data.ExemplarSamples`); those of absent parts are not used.
        contrast_weight: of the contrast; 0 for none.
        segmentation: compares logits and labels; default :class:`ClassLoss`.
        contrast: compares embedding and logits; default :class:`PrototypeContrastLoss`.
    """

    def __init__(
        self,
        weights: Sequence[float] = (1.0, 1.0, 1.0),
        contrast_weight: float = 0.1,
        segmentation: torch.nn.Module | None = None,
        contrast: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.weights = tuple(weights)
        self.contrast_weight = contrast_weight
        self.segmentation = ClassLoss() if segmentation is None else segmentation
        self.contrast = PrototypeContrastLoss() if contrast is None else contrast

    def forward(self, input: TrainingOutput, target: torch.Tensor) -> torch.Tensor:
        """Compare what a network gives with labels.

        Args:
            input: with logits (B P, N+1, *S) and embedding (B P, E, *s) of the P images of B samples, sample after
                sample.
            target: labels (B, P, 1, *S), 0 background, 1..N the classes, 255 ignored.

        Returns:
            A scalar.

        Raises:
            ValueError: where logits and labels do not fit, or a sample has more images than there are weights.
        """
        logits = input.logits
        parts = target.shape[1]
        if len(logits) != target.shape[0] * parts or parts > len(self.weights):
            raise ValueError(
                f"Logits {tuple(logits.shape)} do not fit labels {tuple(target.shape)}, (B, P, 1, *S) with P up to "
                f"{len(self.weights)}."
            )
        by_part = logits.unflatten(0, (-1, parts))
        loss = torch.stack(
            [
                weight * self.segmentation(by_part[:, part], target[:, part])
                for part, weight in enumerate(self.weights[:parts])
            ]
        ).sum()
        return loss + self.contrast_weight * self.contrast(input.embedding, logits) if self.contrast_weight else loss
