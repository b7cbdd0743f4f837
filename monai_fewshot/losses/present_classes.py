# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.nn.modules.loss import _Loss

from monai_fewshot.networks.blocks import class_masks
from monai_fewshot.utils import IGNORED, num_processes, sum_over_processes

__all__ = ["PresentClassesLoss"]


class PresentClassesLoss(_Loss):
    """Cross-entropy plus the Dice loss of the classes that a batch shows, over the pixels that count.

    Pixels that do not count lower the cross-entropy's weight, for it is a mean over all pixels: of a batch that the
    teacher is hardly sure of, little is learned. Dice is that of the whole batch, which processes share, and a class
    that no label of it shows has none: its Dice loss would be 1 for whatever little is predicted of it, and drive it
    out. MONAI's ``DiceCELoss`` has neither.

    Args:
        ignore_index: label of pixels that do not count.

    Example:
        >>> logits = torch.tensor([4.0, -4.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
        >>> round(PresentClassesLoss()(logits, torch.zeros(1, 1, 3, 3)).item(), 4)
        0.0003
    """

    def __init__(self, ignore_index: int = IGNORED) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, input: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Compare logits with labels.

        Args:
            input: (B, N+1, *S), background first.
            target: (B, 1, *S), 0 background, 1..N the classes.
            weights: (N+1,), of the classes' pixels in the cross-entropy, a mean by these weights, background first;
                None for equal ones.

        Returns:
            A scalar; 0 with a graph where no pixel counts.
        """
        logits, label = input.float(), target[:, 0].long()
        counted = (label != self.ignore_index).unsqueeze(1)
        entropy = F.cross_entropy(logits, label, weights, ignore_index=self.ignore_index, reduction="sum")
        entropy = entropy / label.numel()
        if weights is not None:
            weight = weights[label.masked_fill(~counted[:, 0], 0)].unsqueeze(1) * counted
            entropy, weight, share = sum_over_processes(torch.stack([entropy, weight.mean(), counted.float().mean()]))
            entropy = entropy / weight.clamp(min=1e-6) * share / num_processes()
        axes = [axis for axis in range(logits.ndim) if axis != 1]
        predicted = (logits.softmax(1) * counted)[:, 1:]
        masks = class_masks(target.masked_fill(~counted, -1), logits.shape[1] - 1)[:, 1:]
        both, found, sizes = sum_over_processes(
            torch.stack([(predicted * masks).sum(axes), predicted.sum(axes), masks.sum(axes)])
        )
        dice = (2 * both + 1) / (found + sizes + 1)
        present = sizes > 0
        return entropy + ((1 - dice) * present).sum() / present.sum().clamp(min=1)
