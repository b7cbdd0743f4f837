# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from monai_fewshot.networks.blocks import linear_resize, linear_resize_adjoint
from monai_fewshot.networks.blocks.resize import _resize, _resize_backward

CASES = [((2, 3, 8, 9), (16, 20)), ((2, 3, 8, 8), (3, 5)), ((1, 2, 4, 5, 6), (8, 9, 7))]


def _input(shape, channels_last):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return (x.to(memory_format=torch.channels_last) if channels_last else x).requires_grad_()


@pytest.mark.parametrize(("shape", "size", "channels_last"), [(*CASES[0], True), *((*case, False) for case in CASES)])
def test_is_interpolation_and_its_gradient(shape, size, channels_last):
    x = _input(shape, channels_last)
    out = linear_resize(x, size)
    expected = F.interpolate(x, size, mode="bilinear" if len(size) == 2 else "trilinear", align_corners=False)
    assert torch.equal(out, expected)
    gradient = torch.randn_like(expected)
    assert torch.equal(torch.autograd.grad(out, x, gradient)[0], torch.autograd.grad(expected, x, gradient)[0])
    torch.library.opcheck(_resize, (x, list(size)))
    torch.library.opcheck(_resize_backward, (x.detach(), list(size)))


def test_the_same_size_costs_nothing():
    x = _input((1, 2, 5, 6), False)
    assert linear_resize(x, [5, 6]) is x
    assert linear_resize_adjoint(x, [5, 6]) is x


@pytest.mark.parametrize(("shape", "size"), CASES)
def test_adjoint(shape, size):
    """It is the transpose of the matrix whose columns are the interpolated unit images."""
    plane = shape[2:]
    units = torch.eye(math.prod(plane), dtype=torch.double).view(-1, 1, *plane)
    matrix = linear_resize(units, size).flatten(1).T
    weights = torch.randn(*shape[:2], *size, dtype=torch.double, requires_grad=True)
    out = linear_resize_adjoint(weights, plane)
    torch.testing.assert_close(out, (weights.flatten(2) @ matrix).view(shape))
    torch.testing.assert_close(out.flatten(2).sum(2), weights.flatten(2).sum(2))
    gradient = torch.randn_like(out)
    torch.testing.assert_close(torch.autograd.grad(out, weights, gradient)[0], linear_resize(gradient, size))
    torch.library.opcheck(_resize_backward, (weights.float().detach().requires_grad_(), list(plane)))
