# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from monai_fewshot.utils import device_tensor

__all__ = ["gaussian_blur"]


def gaussian_blur(image: torch.Tensor, sigma: Sequence[float]) -> torch.Tensor:
    """Blur images, each with its own standard deviation, repeating the border.

    MONAI's ``GaussianSmooth`` has one for all images of a batch.

    Args:
        image: (B, C, H, W).
        sigma: B standard deviations in pixels, positive; kernels reach to four times the largest.

    Returns:
        (B, C, H, W).
    """
    batch, channels, height, width = image.shape
    reach = math.ceil(4 * max(sigma))
    edges = torch.arange(-reach, reach + 2, device=image.device, dtype=image.dtype) - 0.5
    scale = math.sqrt(2) * device_tensor(sigma, image.device, image.dtype).unsqueeze(1)
    kernel = torch.erf(edges / scale).diff()
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0).unsqueeze(1)
    flat = F.pad(image.reshape(1, -1, height, width), (reach,) * 4, mode="replicate")
    flat = F.conv2d(flat, kernel.unsqueeze(2), groups=batch * channels)
    return F.conv2d(flat, kernel.unsqueeze(3), groups=batch * channels).view_as(image)
