# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from monai_fewshot.utils import device_tensor

__all__ = ["apply_where_drawn"]


def apply_where_drawn(
    apply: Callable[[torch.Tensor, list[Any]], torch.Tensor], images: torch.Tensor, draws: Sequence[Any]
) -> torch.Tensor:
    """Transform the images of a batch that have a draw; the others, with None, stay bit by bit."""
    drawn = [i for i, draw in enumerate(draws) if draw is not None]
    if not drawn:
        return images
    if len(drawn) == len(draws):
        return apply(images, list(draws))
    index = device_tensor(drawn, images.device)
    return images.index_copy(0, index, apply(images[index], [draws[i] for i in drawn]))
