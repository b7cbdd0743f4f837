# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from .error_texts import list_values

__all__ = ["pixels_per_slice", "resize_slices"]


def resize_slices(slices: torch.Tensor, size: Sequence[int], mode: str = "bilinear") -> torch.Tensor:
    """Bring 2D slices to another in-plane size.

    Args:
        slices: (B, C, H, W).
        size: the new (H, W), pixels.
        mode: ``"bilinear"`` (antialiased where it shrinks) for images, ``"nearest"`` for labels.

    Returns:
        (B, C, *size), of the type of ``slices``.

    Raises:
        ValueError: for another mode.
    """
    if mode not in ("bilinear", "nearest"):
        raise ValueError(f"mode must be 'bilinear' or 'nearest', got {mode!r}.")
    if tuple(slices.shape[2:]) == tuple(size):
        return slices
    if mode == "nearest":
        return F.interpolate(slices.float(), tuple(size), mode="nearest-exact").to(slices.dtype)
    return F.interpolate(slices, tuple(size), mode="bilinear", antialias=True, align_corners=False)


def pixels_per_slice(label: torch.Tensor, num_classes: int) -> np.ndarray:
    """Count the pixels of each class in each slice of a label volume.

    Args:
        label: (H, W, D) or (1, H, W, D), values 0 (background) to ``num_classes``.
        num_classes: number of classes N.

    Returns:
        (N, D) integers, background left out.

    Raises:
        ValueError: where a value is not one of the classes.

    Example:
        >>> label = torch.zeros(4, 4, 3)
        >>> label[:2, :2, 1] = 1
        >>> pixels_per_slice(label, 2)
        array([[0, 4, 0],
               [0, 0, 0]])
    """
    plain = torch.as_tensor(label).as_subclass(torch.Tensor).detach()
    values = plain.reshape(-1, plain.shape[-1]).long()
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > num_classes or (plain.is_floating_point() and bool((plain != plain.round()).any())):
        raise ValueError(
            f"label must hold whole numbers from 0 to num_classes={num_classes}, found values {list_values(plain)}. "
            "Map the other values to 0, or raise num_classes."
        )
    depth = values.shape[1]
    bins = values * depth + torch.arange(depth, device=values.device)
    counts = torch.bincount(bins.flatten(), minlength=(num_classes + 1) * depth)
    return counts.reshape(num_classes + 1, depth)[1:].cpu().numpy()
