# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import AttentionUnet, DynUNet, FlexibleUNet, SegResNet, UNet
from torch import nn

from monai_fewshot.networks.blocks import ImageNorm, with_image_norm

NETWORKS = {
    "AttentionUnet": lambda: AttentionUnet(2, 1, 1, (4, 8), (2,)),
    "UNet": lambda: UNet(2, 1, 1, (4, 8), (2,), norm="batch", dropout=0.3),
    "SegResNet": lambda: SegResNet(2, 4, 1, 1, blocks_down=(1, 1), blocks_up=(1,), norm="batch"),
    "DynUNet": lambda: DynUNet(2, 1, 1, (3,) * 3, (1, 2, 2), (2, 2), filters=(4,) * 3, norm_name="batch"),
    "FlexibleUNet": lambda: FlexibleUNet(1, 1, "efficientnet-b0", spatial_dims=2, decoder_channels=(8, 8, 8, 4, 4)),
}


def normed(channels, affine=True):
    torch.manual_seed(0)
    norm = ImageNorm(channels, eps=0.01, affine=affine)
    for p in norm.parameters():
        nn.init.normal_(p)
    return norm


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", [nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d])
def test_it_is_instance_normalization_without_running_statistics(kind, affine):
    norm = normed(3, affine)
    size = {nn.InstanceNorm1d: (7,), nn.InstanceNorm2d: (7, 5), nn.InstanceNorm3d: (4, 3, 5)}[kind]
    other = kind(3, eps=0.01, affine=affine)
    other.load_state_dict(norm.state_dict())
    x = 4 + 3 * torch.randn(4, 3, *size)
    torch.testing.assert_close(norm(x), other(x))
    assert torch.equal(norm.eval()(x), norm.train()(x))
    assert set(norm.state_dict()) == ({"weight", "bias"} if affine else set())


def test_in_numbers():
    x = torch.tensor([1.0, 2.0, 6.0, 3.0]).view(1, 1, 2, 2)
    norm = ImageNorm(1, eps=0.5)
    with torch.no_grad():
        norm.weight.fill_(2)
        norm.bias.fill_(10)
    expected = 10 + 2 * (x - 3) / (3.5 + 0.5) ** 0.5
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize("size", [(1,), (1, 1), (1, 1, 1)])
def test_a_single_pixel_becomes_the_shift(size):
    """Where torch's own refuses to work, as deep levels of networks may have."""
    norm = normed(3)
    expected = norm.bias.detach().view(1, 3, *[1] * len(size)).expand(2, 3, *size)
    torch.testing.assert_close(norm(torch.randn(2, 3, *size)).detach(), expected, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        nn.InstanceNorm2d(3)(torch.randn(2, 3, 1, 1))


def test_second_derivatives():
    norm = normed(2).double()
    x = torch.randn(2, 2, 3, 2).double().requires_grad_()
    assert torch.autograd.gradgradcheck(norm, x)


def test_single_images_have_their_own_statistics():
    norm, x = normed(3), torch.randn(4, 3, 6, 6)
    together = norm(x)
    for index in range(4):
        torch.testing.assert_close(norm(x[[index]]), together[[index]])
    x[1] = torch.nan
    kept = norm(x)[[0, 2, 3]]
    torch.testing.assert_close(kept, together[[0, 2, 3]])


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_keep_their_names_values_and_identities(name):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    before = {n: (id(p), p.detach().clone()) for n, p in network.named_parameters(remove_duplicate=False)}
    order = list(network.state_dict())
    assert with_image_norm(network) is network
    after = dict(network.named_parameters(remove_duplicate=False))
    assert list(after) == list(before)
    for n, p in after.items():
        assert id(p) == before[n][0]
        assert torch.equal(p, before[n][1])
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    assert list(network.state_dict()) == [n for n in order if not n.endswith(buffers)]


@pytest.mark.parametrize("name", NETWORKS)
def test_no_batch_normalization_is_left_and_no_image_leaks(name):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    original = copy.deepcopy(network).train()
    network = with_image_norm(network).eval()
    assert not [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len([m for m in network.modules() if isinstance(m, ImageNorm)]) == len(norms)
    x = torch.randn(3, 1, 64, 64)
    together = network(x)
    for index in range(3):
        torch.testing.assert_close(network(x[[index]]), together[[index]], atol=1e-4, rtol=1e-3)
    if name in ("AttentionUnet", "SegResNet", "DynUNet"):
        expected = original(x[[0]])
        torch.testing.assert_close(together[[0]], expected, atol=1e-4, rtol=1e-3)


def test_epsilon_is_that_of_what_it_replaces():
    network = with_image_norm(nn.Sequential(nn.BatchNorm2d(2, eps=0.3), nn.BatchNorm3d(2, affine=False)))
    assert [m.eps for m in network] == [0.3, 1e-5]
    assert network[1].weight is None
    assert network[1].bias is None


def test_other_normalizations_stay():
    kept = nn.Sequential(nn.InstanceNorm2d(2, affine=True), nn.GroupNorm(1, 2), nn.LayerNorm(4))
    before = list(kept)
    assert list(with_image_norm(kept)) == before
    tracking = with_image_norm(nn.Sequential(nn.InstanceNorm2d(2, affine=True, track_running_stats=True)))
    assert isinstance(tracking[0], ImageNorm)


def test_a_network_that_is_a_normalization_or_has_one_twice():
    norm = nn.BatchNorm2d(2)
    found = with_image_norm(norm)
    assert isinstance(found, ImageNorm)
    assert found.weight is norm.weight
    twice = with_image_norm(nn.Sequential(norm, nn.ReLU(), norm))
    assert all(isinstance(twice[place], ImageNorm) and twice[place].weight is norm.weight for place in (0, 2))
