# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.utils import OptionalImportError, optional_import
from torch import nn

from monai_fewshot.networks.encoders import EncoderAdapter, UNetEncoder, encoder_adapter
from monai_fewshot.networks.nets import ALPNet, MaskSplitNet

needs_timm = pytest.mark.skipif(not optional_import("timm")[1], reason="timm is not installed")


class Pyramid(nn.Module):
    """Two levels, and normalization with statistics."""

    def __init__(self, channels=3):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(channels, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.two = nn.Conv2d(4, 6, 3, 2, 1)

    def forward(self, x):
        one = self.one(x)
        return [one, self.two(one)]


def adapted(**options):
    torch.manual_seed(0)
    return EncoderAdapter(Pyramid(), out_channels=(4, 6), stride=4, **options)


def test_features_are_those_of_the_network():
    encoder, image = adapted().eval(), torch.rand(2, 3, 32, 35)
    levels = encoder.levels(image)
    assert all(torch.equal(one, other) for one, other in zip(levels, encoder.network(image), strict=True))
    assert torch.equal(encoder(image), levels[-1])
    assert encoder.level_channels == tuple(level.shape[1] for level in levels) == (4, 6)
    assert (encoder.stride, encoder.out_channels, levels[-1].shape[2:]) == (4, 6, (8, 9))


def test_a_single_channel_is_repeated_and_others_are_refused():
    encoder, image = adapted().eval(), torch.rand(2, 1, 32, 32)
    assert torch.equal(encoder(image), encoder(image.repeat(1, 3, 1, 1)))
    with pytest.raises(ValueError, match=r"the image has 2 channels \(shape \(1, 2, 32, 32\)\), EncoderAdapter"):
        encoder(torch.rand(1, 2, 32, 32))


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.25), ([0.1, 0.2, 0.3], [0.5, 1.0, 2.0]), (None, 2.0), (0.5, None)])
def test_images_are_normalized(mean, std):
    encoder, image = adapted(mean=mean, std=std).eval(), torch.rand(2, 3, 32, 32)
    shift, scale = (torch.tensor(x).expand(3).view(3, 1, 1) for x in (0.0 if mean is None else mean, std or 1.0))
    torch.testing.assert_close(encoder(image), encoder.network((image - shift) / scale)[-1])
    assert {"mean", "std"} & encoder.state_dict().keys() == {n for n, x in (("mean", mean), ("std", std)) if x}


@pytest.mark.parametrize("freeze", [False, True])
def test_what_is_frozen_neither_learns_nor_drifts(freeze):
    encoder = adapted(freeze=freeze)
    network = ALPNet(2, encoder, train_window=2).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    label = torch.zeros(2, 1, 1, 32, 32)
    label[..., 4:20, 4:20] = 1
    assert network(torch.rand(2, 1, 32, 32), torch.rand(2, 1, 1, 32, 32), label).logits.requires_grad is not freeze
    assert {name: torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items()} == {
        name: freeze or ("running" not in name and "num_batches" not in name) for name in before
    }
    assert {module.training for module in encoder.modules()} == {not freeze}
    assert {parameter.requires_grad for parameter in encoder.parameters()} == {not freeze}


def test_networks_that_use_all_levels_take_it():
    network = MaskSplitNet(2, adapted(), channels=8, decoder_channels=(8, 8), freeze_encoder=False).train()
    label = torch.zeros(2, 1, 1, 32, 32)
    label[..., 4:20, 4:20] = 1
    network(torch.rand(2, 3, 32, 32), torch.rand(2, 1, 3, 32, 32), label).logits.square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_volumes_and_encoders_of_ours():
    encoder = EncoderAdapter(UNetEncoder(3, 1, (4, 8), 5), 5, 2, spatial_dims=3, in_channels=1, mean=1.0).eval()
    image = torch.rand(1, 1, 16, 16, 18)
    torch.testing.assert_close(encoder(image), encoder.network(image - 1))


def test_weights_of_a_checkpoint(tmp_path):
    torch.save({"state_dict": (expected := Pyramid().state_dict())}, tmp_path / "weights.pt")
    found = adapted(weights=str(tmp_path / "weights.pt")).network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_arguments_that_do_not_fit():
    for options in ({}, {"out_channels": 4}, {"stride": 4}):
        with pytest.raises(ValueError, match=r"out_channels is \w+ and stride \w+: give both for a network"):
            EncoderAdapter(Pyramid(), **options)
    with pytest.raises(ValueError, match="out_channels is 4 and stride 4: give both for a network, and neither for a"):
        EncoderAdapter("resnet18", out_channels=4, stride=4)
    with pytest.raises(ValueError, match=r"shapes \[\(1, 4, 8, 8\), \(1, 6, 4, 4\)\], not \(6,\) channels"):
        EncoderAdapter(Pyramid(), 6, 4)(torch.rand(1, 3, 16, 16))


def test_without_timm_a_name_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(encoder_adapter, "optional_import", lambda name: optional_import(f"{name}_that_is_not_there"))
    with pytest.raises(OptionalImportError, match="timm_that_is_not_there"):
        EncoderAdapter("resnet18")


@needs_timm
@pytest.mark.parametrize(
    ("name", "options", "channels", "stride"),
    [
        ("resnet18", {}, (512,), 32),
        ("resnet18", {"output_stride": 8}, (512,), 8),
        ("convnext_atto", {}, (320,), 32),
        ("swin_tiny_patch4_window7_224", {"img_size": 64}, (768,), 32),
        ("vit_tiny_patch16_224", {"img_size": 64}, (192,), 16),
    ],
)
def test_models_of_timm(name, options, channels, stride):
    encoder = EncoderAdapter(name, in_channels=1, options=options).eval()
    features = encoder(torch.rand(2, 1, 64, 64))
    assert features.shape == (2, *channels, 64 // stride, 64 // stride)
    assert (encoder.level_channels, encoder.stride) == (channels, stride)


@needs_timm
def test_levels_of_timm():
    encoder = EncoderAdapter("resnet18", out_indices=(1, 2, 3)).eval()
    assert encoder.level_channels == (64, 128, 256)
    assert [tuple(level.shape[1:]) for level in encoder.levels(torch.rand(1, 1, 64, 70))] == [
        (64, 16, 18), (128, 8, 9), (256, 4, 5),
    ]  # fmt: skip


@needs_timm
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_timm_reads_a_checkpoint_of_the_whole_model(name, tmp_path):
    whole = pytest.importorskip("timm").create_model(name).eval()
    torch.save(whole.state_dict(), tmp_path / "weights.pt")
    encoder = EncoderAdapter(name, weights=str(tmp_path / "weights.pt")).eval()
    image = torch.rand(1, 3, 64, 64)
    features = whole.forward_features(image)
    torch.testing.assert_close(encoder(image), features)
