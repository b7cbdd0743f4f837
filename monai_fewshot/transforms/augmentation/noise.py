# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

__all__ = ["uniform_noise"]


def uniform_noise(seeds: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Noise that is a function of a seed and a position alone: the same on every device and in every batch.

    Seed and position are hashed with wrapping 32-bit arithmetic, so that nothing is drawn one after another and
    nothing is copied to the device.

    Based on: the hash ``lowbias32`` of C. Wellons, "Prospecting for Hash Functions", 2018,
    https://nullprogram.com/blog/2018/07/31/.

    Args:
        seeds: (B,), integers from 0 to 2^31 - 1, on the device where the noise shall be.
        size: shape of the noise of one seed.

    Returns:
        (B, *size), float32, uniform between -1 and 1.

    Example:
        >>> uniform_noise(torch.tensor([7, 8, 7]), (2, 3)).shape
        torch.Size([3, 2, 3])
    """
    position = _mix(torch.arange(prod(size), dtype=torch.int32, device=seeds.device))
    key = _mix(seeds.to(torch.int32) + 1)
    return _mix(key.unsqueeze(1) ^ position).float().mul_(2.0**-31).unflatten(1, tuple(size))


def _mix(x: torch.Tensor) -> torch.Tensor:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - (1 << 32))):
        x = (x ^ _shift_right(x, shift)) * factor
    return x ^ _shift_right(x, 16)


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift 32-bit integers without carrying their sign along."""
    return (x >> bits) & ((1 << (32 - bits)) - 1)
