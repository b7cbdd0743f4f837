# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from monai.networks.layers import gaussian_1d, separable_filtering
from monai.utils import ensure_tuple_rep

__all__ = ["adjust_gamma", "affine_matrices", "elastic_displacement", "warp"]


def affine_matrices(
    rotation: torch.Tensor, translation: torch.Tensor, shear: torch.Tensor, zoom: torch.Tensor
) -> torch.Tensor:
    """Compose affine maps from output to input pixels, about the center of the image.

    The content turns, is sheared, grows and moves, in this order; the maps are the inverse of that.

    Args:
        rotation: (B,), radians by which the content turns from the first axis to the second.
        translation: (B, 2), pixels by which the content moves along the two axes.
        shear: (B,), radians; what lies d pixels along the second axis slides by -d tan(shear) along the first.
        zoom: (B,), factor by which the content grows.

    Returns:
        (B, 2, 3), acting on (first axis, second axis, 1).
    """
    cos, sin, tangent = rotation.cos(), rotation.sin(), shear.tan()
    matrix = torch.stack([cos, sin + cos * tangent, -sin, cos - sin * tangent], dim=1).view(-1, 2, 2)
    matrix = matrix / zoom.view(-1, 1, 1)
    return torch.cat([matrix, -matrix @ translation.unsqueeze(2)], dim=2)


def elastic_displacement(noise: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    """Smooth noise into a displacement field.

    Based on: Simard et al., "Best Practices for Convolutional Neural Networks", ICDAR 2003, section 2.

    Args:
        noise: (B, 2, H, W), uniform between -1 and 1.
        alpha: factor, in pixels.
        sigma: standard deviation of the Gaussian, in pixels.

    Returns:
        (B, 2, H, W), pixels.
    """
    kernel = gaussian_1d(torch.tensor(float(sigma)), truncated=4.0).to(noise, non_blocking=True)
    return alpha * separable_filtering(noise, [kernel, kernel], mode="zeros")


def warp(
    image: torch.Tensor,
    matrix: torch.Tensor,
    displacement: torch.Tensor | None = None,
    mode: Sequence[str] | str = "bilinear",
) -> torch.Tensor:
    """Resample a batch of images once, under an affine map and a displacement field.

    An output pixel x takes its value from ``matrix (x - center + displacement(x)) + center``.

    Args:
        image: (B, C, H, W).
        matrix: (B, 2, 3), output to input, pixels about the center.
        displacement: (B, 2, H, W), pixels.
        mode: of all channels, or of each: ``"bilinear"`` repeats the border outside the image; ``"nearest"``, for
            labels, has 0 there.

    Returns:
        (B, C, H, W).
    """
    height, width = image.shape[2:]
    axes = [torch.arange(n, device=image.device, dtype=image.dtype) - (n - 1) / 2 for n in (height, width)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    points = points.expand(image.shape[0], -1, -1, -1)
    if displacement is not None:
        points = points + displacement
    points = (matrix[:, :, :2] @ points.flatten(2) + matrix[:, :, 2:]).unflatten(2, (height, width))
    grid = torch.stack([points[:, 1] / (width / 2), points[:, 0] / (height / 2)], dim=3)
    modes = ensure_tuple_rep(mode, image.shape[1])
    runs = [(mode, len(list(group))) for mode, group in groupby(modes)]
    parts = image.split([length for _, length in runs], dim=1)
    return torch.cat([_sample(part, grid, mode) for part, (mode, _) in zip(parts, runs, strict=True)], dim=1)


def _sample(image: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    padding = "border" if mode == "bilinear" else "zeros"
    return F.grid_sample(image, grid, mode=mode, padding_mode=padding, align_corners=False)


def adjust_gamma(image: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """Raise each image to a power within its own range of intensities, channel by channel.

    The mathematics of :class:`monai.transforms.AdjustContrast`, for a batch with a gamma an image.

    Args:
        image: (B, C, H, W).
        gamma: (B,), positive.

    Returns:
        (B, C, H, W), with the minimum and maximum of ``image``.
    """
    low, high = image.amin((2, 3), keepdim=True), image.amax((2, 3), keepdim=True)
    span = high - low
    return ((image - low) / span.clamp(min=1e-7)).pow(gamma.view(-1, 1, 1, 1)) * span + low
