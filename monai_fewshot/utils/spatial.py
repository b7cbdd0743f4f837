# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

__all__ = ["resize_slices"]


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
