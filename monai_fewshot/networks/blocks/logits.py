# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch

__all__ = ["class_masks", "foreground_logits"]


def class_masks(label: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Turn labels into masks.

    ``monai.networks.one_hot`` does not take values beyond the classes, which are in no mask here.

    Args:
        label: (B, 1, *S), 0 background, 1..N the classes, other values ignored.
        num_classes: N.

    Returns:
        (B, N+1, *S), background first, floating point.
    """
    classes = torch.arange(num_classes + 1, device=label.device).view(1, -1, *[1] * (label.ndim - 2))
    return (label == classes).float()


def foreground_logits(margins: torch.Tensor) -> torch.Tensor:
    """Make logits of all classes of one logit a class.

    Args:
        margins: (B, N, 1, *S), the foreground's logit over the background's of each class.

    Returns:
        (B, N+1, *S): 0 for background, then the margins.
    """
    margins = margins.flatten(1, 2)
    return torch.cat([torch.zeros_like(margins[:, :1]), margins], dim=1)
