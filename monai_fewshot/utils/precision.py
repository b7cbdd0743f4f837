# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from .devices import check_device

__all__ = ["autocast", "default_dtype"]

VARIABLE = "MONAI_FEWSHOT_DTYPE"
CHOICES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def default_dtype(device: torch.device | str) -> torch.dtype:
    """Choose the precision of runs that do not name theirs.

    The environment variable ``MONAI_FEWSHOT_DTYPE``, ``float32`` or ``bfloat16``, overrides the choice, for this
    process and those it starts. On a CPU with AVX-512 BF16 or AMX, a training step in bfloat16 takes two thirds of the
    time, but Dice was not always as high (docs/performance.md); without these instructions bfloat16 is slow.

    Args:
        device: the device.

    Returns:
        bfloat16 for GPUs that multiply it in hardware (NVIDIA since Ampere), else float32.

    Raises:
        ValueError: where the variable holds anything else, or there is no such device.
    """
    if wanted := os.environ.get(VARIABLE):
        if wanted not in CHOICES:
            raise ValueError(
                f"The environment variable {VARIABLE} is {wanted!r}: set it to {' or '.join(CHOICES)}, or unset it to "
                "choose by the device."
            )
        return CHOICES[wanted]
    return torch.bfloat16 if is_gpu_with_bfloat16(check_device(device)) else torch.float32


def is_gpu_with_bfloat16(device: torch.device) -> bool:
    """Tell whether a device is a GPU that multiplies bfloat16 in hardware."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def as_dtype(dtype: torch.dtype | str) -> torch.dtype | None:
    """Read a precision, such as ``"bfloat16"``; None for one that no run can have."""
    return CHOICES.get(str(dtype).removeprefix("torch."))


def autocast(device: torch.device | str, dtype: torch.dtype | str) -> AbstractContextManager[Any]:
    """Make a context for mixed precision on any device.

    Args:
        device: the device.
        dtype: of convolutions and matrix products, or its name; float32 changes nothing.

    Returns:
        The context.
    """
    precision = as_dtype(dtype)
    return nullcontext() if precision == torch.float32 else torch.autocast(torch.device(device).type, precision)
