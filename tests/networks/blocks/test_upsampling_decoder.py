# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from monai_fewshot.networks.blocks import UpsamplingDecoder

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}


def _decoder(*args, **kwargs):
    torch.manual_seed(0)
    decoder = UpsamplingDecoder(*args, **kwargs)
    for module in decoder.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return decoder.eval()


def _resized(x, size):
    return F.interpolate(x, tuple(size), mode="bilinear" if len(size) == 2 else "trilinear", align_corners=False)


def _block(block, x):
    """Convolution, normalization and ReLU, from the weights alone."""
    for layer in block:
        convolution, norm = layer.conv, layer.adn.N
        x = (F.conv2d if x.ndim == 4 else F.conv3d)(x, convolution.weight, convolution.bias, padding=1)
        shape = (1, -1, *[1] * (x.ndim - 2))
        spread = (norm.running_var + norm.eps).sqrt()
        x = (x - norm.running_mean.view(shape)) / spread.view(shape) * norm.weight.view(shape) + norm.bias.view(shape)
        x = x.clamp(min=0)
    return x


@pytest.mark.parametrize("upsample_first", [True, False])
@pytest.mark.parametrize(
    ("features", "size", "sizes"),
    [
        ((4, 5), (32, 40), [(8, 10), (16, 20)]),
        ((4, 5), (16, 20), [(8, 10), (16, 20)]),
        ((4, 5), (7, 30), [(7, 10), (7, 20)]),
        ((4, 5), (4, 5), [(4, 5), (4, 5)]),
        ((4, 5), (3, 6), [(3, 6), (3, 6)]),
        ((2, 3, 4), (9, 12, 5), [(4, 6, 5), (8, 12, 5)]),
    ],
)
def test_blocks_double_the_size_up_to_that_of_the_image(features, size, sizes, upsample_first):
    decoder = _decoder(len(size), 6, (5, 3), convolutions=2, upsample_first=upsample_first)
    x = torch.randn(2, 6, *features)
    expected = x
    for block, target in zip(decoder.blocks, sizes, strict=True):
        expected = (
            _block(block, _resized(expected, target)) if upsample_first else _resized(_block(block, expected), target)
        )
    expected = _resized(expected, size)
    with torch.no_grad():
        out = decoder(x, size)
    assert out.shape == (2, 3, *size)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_convolutions_chain_channels(dims):
    decoder = _decoder(dims, 8, (6, 4, 2), convolutions=3)
    found = [(c.in_channels, c.out_channels) for c in decoder.modules() if isinstance(c, CONVOLUTIONS[dims])]
    assert found == [(8, 6), (6, 6), (6, 6), (6, 4), (4, 4), (4, 4), (4, 2), (2, 2), (2, 2)]
    assert {c.kernel_size for c in decoder.modules() if isinstance(c, CONVOLUTIONS[dims])} == {(3,) * dims}


def test_normalization_and_activation_are_chosen():
    decoder = _decoder(2, 4, (4,), norm="instance", act=("leakyrelu", {"negative_slope": 0.5}))
    x = torch.randn(2, 4, 6, 6)
    layer = decoder.blocks[0][0]
    y = F.conv2d(x, layer.conv.weight, layer.conv.bias, padding=1)
    y = (y - y.mean((2, 3), keepdim=True)) / (y.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(decoder(x, (6, 6)), torch.where(y > 0, y, 0.5 * y), rtol=1e-4, atol=1e-5)


def test_without_blocks_features_are_resized():
    x = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(_decoder(2, 3, ())(x, (8, 12)), _resized(x, (8, 12)))


def test_every_weight_has_a_gradient():
    decoder = _decoder(2, 4, (8, 4), convolutions=2).train()
    decoder(torch.randn(2, 4, 4, 4), (20, 20)).square().sum().backward()
    biases = {id(c.bias) for c in decoder.modules() if isinstance(c, nn.Conv2d)}
    weights = [p for p in decoder.parameters() if id(p) not in biases]
    assert len(weights) == 3 * 4
    assert all(p.grad.abs().sum() > 0 for p in weights)


def test_the_size_must_have_the_dimensions_of_the_features():
    with pytest.raises(ValueError, match="zip"):
        _decoder(2, 4, (4,))(torch.randn(1, 4, 4, 4), (8, 8, 8))
