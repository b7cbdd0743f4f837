# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from monai_fewshot.networks.blocks import linear_resize, linear_resize_adjoint

CASES = [((2, 3, 8, 9), (16, 20)), ((2, 3, 8, 8), (3, 5)), ((2, 20, 6, 5), (6, 9)), ((1, 2, 4, 5, 6), (8, 9, 7))]
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels-last": lambda x: x.contiguous(
        memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    ),
    "a part of a concatenation": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
    "a part of a channels-last concatenation": lambda x: torch.cat([x, x], 1).contiguous(
        memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    )[:, : x.shape[1]],
}


def _input(shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def _interpolate(x, size):
    return F.interpolate(x, size, mode="bilinear" if len(size) == 2 else "trilinear", align_corners=False)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "size"), CASES)
def test_is_interpolation_and_its_gradient(shape, size, layout):
    x = LAYOUTS[layout](_input(shape)).requires_grad_()
    out, expected = linear_resize(x, size), _interpolate(x, size)
    torch.testing.assert_close(out, expected, atol=2e-6, rtol=0)
    gradient = torch.randn_like(expected)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, gradient)[0] for y in (out, expected)), atol=1e-5, rtol=0)


def test_far_larger_sizes_are_as_exact():
    x = _input((1, 2, 32, 48))
    torch.testing.assert_close(linear_resize(x, (500, 512)), _interpolate(x, (500, 512)), atol=2e-5, rtol=0)


def test_channels_stay_innermost():
    x = _input((2, 32, 8, 8)).contiguous(memory_format=torch.channels_last)
    assert linear_resize(x, (16, 16)).is_contiguous(memory_format=torch.channels_last)


def test_the_same_size_costs_nothing():
    x = _input((1, 2, 5, 6))
    assert linear_resize(x, [5, 6]) is x
    assert linear_resize_adjoint(x, [5, 6]) is x


def test_autocast_does_not_touch_the_precision():
    x = _input((1, 2, 8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(linear_resize(x, (16, 16)), linear_resize(x, (16, 16)).float())
        assert linear_resize(x, (16, 16)).dtype == torch.float32
        assert linear_resize(x.bfloat16(), (16, 16)).dtype == torch.bfloat16


@pytest.mark.parametrize(("shape", "size"), CASES)
def test_adjoint(shape, size):
    """It is the transpose of the matrix whose columns are the interpolated unit images."""
    plane = shape[2:]
    units = torch.eye(math.prod(plane), dtype=torch.double).view(-1, 1, *plane)
    matrix = _interpolate(units, size).flatten(1).T
    weights = torch.randn(*shape[:2], *size, dtype=torch.double, requires_grad=True)
    out = linear_resize_adjoint(weights, plane)
    torch.testing.assert_close(out, (weights.flatten(2) @ matrix).view(shape))
    torch.testing.assert_close(out.flatten(2).sum(2), weights.flatten(2).sum(2))
    gradient = torch.randn_like(out)
    torch.testing.assert_close(torch.autograd.grad(out, weights, gradient)[0], linear_resize(gradient, size))


def test_function_transforms_go_through():
    x = _input((3, 2, 8, 8))

    def energy(image):
        return linear_resize(image[None], (13, 16)).square().sum()

    expected = torch.autograd.grad(_interpolate(x.requires_grad_(), (13, 16)).square().sum(), x)[0]
    gradients = torch.func.vmap(torch.func.grad(energy))(x.detach())
    torch.testing.assert_close(gradients, expected, atol=1e-4, rtol=1e-4)


def test_an_exported_network_needs_no_operator_of_ours():
    class Resize(torch.nn.Module):
        def forward(self, x):
            return linear_resize(x, (16, 16)) + linear_resize_adjoint(linear_resize(x, (4, 4)), (16, 16))

    x = _input((1, 2, 8, 8))
    program = torch.export.export(Resize(), (x,))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called
    assert not any("monai_fewshot" in name for name in called)
    torch.testing.assert_close(program.module()(x), Resize()(x))
