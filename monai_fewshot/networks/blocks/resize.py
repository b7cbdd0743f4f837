# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["linear_resize", "linear_resize_adjoint"]


def linear_resize(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bring a batch to another size by linear interpolation, without aligning corners.

    ``torch.nn.functional.interpolate`` as one opaque operator: ``torch.compile`` would otherwise rewrite its gradient
    as scattered additions, which its code generator fuses wrongly (pytorch issue 185509; a U-Net in training received
    zero gradients above its last upsampling, torch 2.13 on a CPU).

    Args:
        x: (B, C, *S), with 2 or 3 spatial dimensions.
        size: the new spatial size.

    Returns:
        (B, C, *size).
    """
    return x if tuple(x.shape[2:]) == tuple(size) else _resize(x, list(size))


def linear_resize_adjoint(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    r"""Hand the weight of each element to the elements that :func:`linear_resize` makes it of.

    With :math:`A` the interpolation, this is :math:`A^T`, so that a sum over interpolated features under a mask costs
    no interpolation of features:

    .. math::
        \sum_i m_i (A f)_i = \sum_j (A^T m)_j f_j, \qquad \sum_i m_i = \sum_j (A^T m)_j

    Args:
        x: weights (B, C, *S), with 2 or 3 spatial dimensions.
        size: spatial size of what is interpolated to S.

    Returns:
        (B, C, *size), of the same sum.

    Example:
        >>> linear_resize_adjoint(torch.ones(1, 1, 8, 8), (2, 2))
        tensor([[[[16., 16.],
                  [16., 16.]]]])
    """
    return x if tuple(x.shape[2:]) == tuple(size) else _resize_backward(x, list(size))


@torch.library.custom_op("monai_fewshot::linear_resize", mutates_args=())
def _resize(x: torch.Tensor, size: list[int]) -> torch.Tensor:
    return F.interpolate(x, size=size, mode="bilinear" if x.ndim == 4 else "trilinear", align_corners=False)


@torch.library.custom_op("monai_fewshot::linear_resize_backward", mutates_args=())
def _resize_backward(gradient: torch.Tensor, size: list[int]) -> torch.Tensor:
    output_size, input_size = gradient.shape[2:], [*gradient.shape[:2], *size]
    if gradient.ndim == 4:
        return torch.ops.aten.upsample_bilinear2d_backward(gradient, output_size, input_size, False)
    return torch.ops.aten.upsample_trilinear3d_backward(gradient, output_size, input_size, False)


def _shape_of_result(x: torch.Tensor, size: list[int]) -> torch.Tensor:
    result = x.new_empty((*x.shape[:2], *size))
    return result.to(memory_format=torch.channels_last) if _channels_last(x) else result


def _channels_last(x: torch.Tensor) -> bool:
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _remember(ctx: Any, inputs: tuple[torch.Tensor, list[int]], output: torch.Tensor) -> None:
    ctx.size = list(inputs[0].shape[2:])


def _backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
    return _resize_backward(gradient, ctx.size), None


def _backward_of_adjoint(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
    return _resize(gradient, ctx.size), None


_resize.register_fake(_shape_of_result)
_resize_backward.register_fake(_shape_of_result)
_resize.register_autograd(_backward, setup_context=_remember)
_resize_backward.register_autograd(_backward_of_adjoint, setup_context=_remember)
