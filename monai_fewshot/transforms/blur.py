# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

__all__ = ["gaussian_blur"]


def gaussian_blur(image: torch.Tensor, sigma: torch.Tensor, reach: int) -> torch.Tensor:
    """Blur images, each with its own standard deviation, repeating the border.

    MONAI's ``GaussianSmooth`` has one for all images of a batch.

    Args:
        image: (B, C, H, W).
        sigma: (B,) standard deviations in pixels, positive.
        reach: pixels on either side that the kernel covers.

    Returns:
        (B, C, H, W).
    """
    batch, channels, height, width = image.shape
    edges = torch.arange(-reach, reach + 2, device=image.device, dtype=image.dtype) - 0.5
    kernel = torch.erf(edges / (math.sqrt(2) * sigma.unsqueeze(1))).diff()
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0).unsqueeze(1)
    flat = F.pad(image.reshape(1, -1, height, width), (reach,) * 4, mode="replicate")
    flat = F.conv2d(flat, kernel.unsqueeze(2), groups=batch * channels)
    return F.conv2d(flat, kernel.unsqueeze(3), groups=batch * channels).view_as(image)
