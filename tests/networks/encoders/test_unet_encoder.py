# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from monai_fewshot.networks.encoders import UNetEncoder


def test_default_size_and_attributes():
    encoder = UNetEncoder()
    assert sum(p.numel() for p in encoder.parameters()) == 1_796_672
    assert (encoder.in_channels, encoder.out_channels, encoder.stride) == (1, 64, 2)


@pytest.mark.parametrize("size", [(15, 31), (17, 31), (64, 64), (257, 100)])
def test_features_at_half_resolution_rounded_up(size):
    features = UNetEncoder(channels=(4, 8, 8, 8), out_channels=6)(torch.rand(2, 1, *size))
    assert features.shape == (2, 6, *((s + 1) // 2 for s in size))


@pytest.mark.parametrize("size", [(16, 24, 32), (17, 16, 31)])
def test_three_dimensions(size):
    encoder = UNetEncoder(3, in_channels=2, channels=(4, 8, 8, 8), out_channels=5, norm="instance")
    assert encoder(torch.rand(1, 2, *size)).shape == (1, 5, *((s + 1) // 2 for s in size))


def test_features_are_not_squashed():
    torch.manual_seed(0)
    features = UNetEncoder()(torch.randn(2, 1, 32, 32))
    signs = (features > 0).float().mean((0, 2, 3))
    assert features.min() < 0 < features.max()
    assert ((signs == 0) | (signs == 1)).sum() < 64
    assert not torch.allclose(features.std((0, 2, 3)), torch.ones(64), atol=0.05)


def test_every_parameter_learns():
    encoder = UNetEncoder(channels=(4, 8, 8, 8))
    encoder(torch.rand(2, 1, 33, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_receptive_field_reaches_the_far_corner():
    encoder = UNetEncoder().eval()
    image = torch.rand(1, 1, 96, 96, requires_grad=True)
    encoder(image)[0, :, 24, 24].sum().backward()
    reached = image.grad[0, 0].abs() > 0
    assert reached[8:88, 8:88].float().mean() > 0.9


def test_exports():
    encoder = UNetEncoder(channels=(4, 8, 8, 8)).eval()
    image = torch.rand(2, 1, 33, 48)
    program = torch.export.export(encoder, (image,))
    torch.testing.assert_close(program.module()(image), encoder(image))


def test_wrong_channels_named():
    with pytest.raises(ValueError, match=r"the image has 3 channels .*UNetEncoder was made for 1.*in_channels=3"):
        UNetEncoder()(torch.rand(1, 3, 32, 32))


def test_wrong_dimensions_named():
    with pytest.raises(ValueError, match=r"spatial_dims=2 needs an image of 4 dimensions.*\(1, 1, 32, 32, 32\)"):
        UNetEncoder()(torch.rand(1, 1, 32, 32, 32))


def test_too_small_image_named():
    with pytest.raises(ValueError, match=r"\(14, 32\) voxels.*4 levels needs 15 or more along each axis and 31"):
        UNetEncoder()(torch.rand(1, 1, 14, 32))
    with pytest.raises(ValueError, match=r"\(30, 30\) voxels.*31 or more along one"):
        UNetEncoder()(torch.rand(1, 1, 30, 30))


def test_constructor_errors():
    with pytest.raises(ValueError, match=r"channels is \(32,\).*two levels or more"):
        UNetEncoder(channels=(32,))
    with pytest.raises(ValueError, match="spatial_dims is 1, must be 2 or 3"):
        UNetEncoder(1)
