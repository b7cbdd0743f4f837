# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["linear_resize", "linear_resize_adjoint"]

FEW_CHANNELS = 16
"""With fewer channels, matrix products over channels that lie innermost are too narrow to be fast."""


def linear_resize(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    r"""Resize a batch by linear interpolation, without aligning corners.

    The values of ``torch.nn.functional.interpolate``, as one matrix product for each spatial axis:

    .. math::
        (A f)_i = \sum_j \max(0, 1 - |p_i - j|) \, f_j, \qquad
        p_i = \mathrm{clamp}\left(\tfrac{n}{m} (i + \tfrac12) - \tfrac12, 0, n - 1\right)

    for an axis of n elements that becomes one of m. Gradients are matrix products too. ``interpolate`` adds them up by
    scattering, which differs from run to run on a GPU, and which ``torch.compile`` gets wrong in the U-Net (torch 2.13
    on a CPU; a similar report is pytorch issue 185509).

    Args:
        x: (B, C, *S), with 2 or 3 spatial dimensions.
        size: the new spatial size.

    Returns:
        (B, C, *size), in the precision of ``x`` under any autocast.
    """
    return _multiply(x, [_weights(old, new, x) for old, new in zip(x.shape[2:], size, strict=True)])


def linear_resize_adjoint(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    r"""Hand the weight of each element to the elements that ``linear_resize`` makes it of.

    With :math:`A` the interpolation, this is :math:`A^T`, so that a sum over interpolated features under a mask costs
    no interpolation of features:

    .. math::
        \sum_i m_i (A f)_i = \sum_j (A^T m)_j f_j, \qquad \sum_i m_i = \sum_j (A^T m)_j

    Args:
        x: weights (B, C, *S), with 2 or 3 spatial dimensions.
        size: spatial size of what is interpolated to S.

    Returns:
        (B, C, *size), of the same sum, in the precision of ``x`` under any autocast.

    Example:
        >>> linear_resize_adjoint(torch.ones(1, 1, 8, 8), (2, 2))
        tensor([[[[16., 16.],
                  [16., 16.]]]])
    """
    return _multiply(x, [_weights(new, old, x).T for old, new in zip(x.shape[2:], size, strict=True)])


def _weights(old: int, new: int, x: torch.Tensor) -> torch.Tensor:
    """Make the interpolation matrix (new, old) of an axis."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    source, target = (torch.arange(n, device=x.device, dtype=dtype) for n in (old, new))
    position = ((target + 0.5) * (old / new) - 0.5).clamp(0, old - 1)
    return (1 - (position[:, None] - source).abs()).clamp(min=0).to(x.dtype)


def _multiply(x: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Multiply each spatial axis of x (B, C, *S) by its matrix; channels-last tensors stay so."""
    if all(matrix.shape[0] == matrix.shape[1] for matrix in matrices):
        return x
    channels_last = x.stride(1) == 1 and x.shape[1] >= FEW_CHANNELS
    out = x.movedim(1, -1) if channels_last else x
    with torch.autocast(x.device.type, enabled=False):
        for axis, matrix in enumerate(matrices, start=1 if channels_last else 2):
            if axis == out.ndim - 1:
                out = out @ matrix.T
            else:
                out = (matrix @ out.flatten(axis + 1)).unflatten(-1, out.shape[axis + 1 :])
    return out.movedim(-1, 1) if channels_last else out
