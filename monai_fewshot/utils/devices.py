# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import platform
from typing import Any

import torch

__all__ = ["check_device", "device_name", "device_tensor"]


def check_device(device: torch.device | str) -> torch.device:
    """Check that a device is there.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        The device.

    Raises:
        ValueError: where it is not, with those that are.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    usable = ", ".join(["cpu", *(["cuda"] if count else []), *(f"cuda:{number}" for number in range(count))])
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError):
        place = None
    if place is None or place.type not in ("cpu", "cuda") or (place.type == "cuda" and (place.index or 0) >= count):
        raise ValueError(f"--device is {str(device)!r}, which is not here. Devices that would work: {usable}.")
    return place


def device_name(device: torch.device) -> str:
    """Name a device for people, such as ``cuda:0 (NVIDIA A100)``."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.machine()}, threads: {torch.get_num_threads()})"


def device_tensor(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Copy a few numbers to a device without waiting for what it is doing.

    ``torch.tensor(values, device=device)`` and indexing with a list wait until a GPU has done all its work.

    Args:
        values: numbers, nested lists of them, or an array.
        device: where to.
        dtype: of the tensor; default that of the values.

    Returns:
        The tensor.
    """
    return torch.as_tensor(values, dtype=dtype).to(device, non_blocking=True)
