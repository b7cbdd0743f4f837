# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch

__all__ = ["device_tensor"]


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
