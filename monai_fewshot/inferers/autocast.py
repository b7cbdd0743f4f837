# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer

from monai_fewshot.utils import autocast

__all__ = ["AutocastInferer"]


class AutocastInferer(Inferer):
    """Run another inferer in mixed precision, on any device: MONAI's engines have ``amp`` for CUDA alone.

    Losses lie outside and stay in float32, and so do similarities
    (:func:`monai_fewshot.networks.blocks.prototype_similarity`).

    Args:
        inferer: for example ``monai.inferers.SimpleInferer``.
        dtype: of convolutions and matrix products; float32 changes nothing.

    Example:
        >>> import torch
        >>> from monai.inferers import SimpleInferer
        >>> inferer = AutocastInferer(SimpleInferer(), torch.bfloat16)
        >>> inferer(torch.rand(1, 1, 8, 8), torch.nn.Conv2d(1, 4, 3)).dtype
        torch.bfloat16
    """

    def __init__(self, inferer: Inferer, dtype: torch.dtype) -> None:
        self.inferer = inferer
        self.dtype = dtype

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Run the inferer.

        Args:
            inputs: see the inferer.
            network: see the inferer.
            args: see the inferer.
            kwargs: see the inferer.

        Returns:
            What the inferer returns.
        """
        with autocast(inputs.device, self.dtype):
            return self.inferer(inputs, network, *args, **kwargs)
