# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from monai_fewshot.networks.encoders import VGG16Encoder

VGG16 = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512]


def torchvision_shapes(batch_norm):
    """Names and shapes of torchvision's vgg16 features, written down from its published structure."""
    shapes, index, channels = {}, 0, 3
    for entry in VGG16:
        if entry == "M":
            index += 1
            continue
        shapes[f"features.{index}.weight"], shapes[f"features.{index}.bias"] = (entry, channels, 3, 3), (entry,)
        if batch_norm:
            parts = ("weight", "bias", "running_mean", "running_var")
            shapes.update({f"features.{index + 1}.{part}": (entry,) for part in parts})
            shapes[f"features.{index + 1}.num_batches_tracked"] = ()
        index += 3 if batch_norm else 2
        channels = entry
    return shapes


@pytest.mark.parametrize(("batch_norm", "parameters"), [(False, 14_714_688), (True, 14_723_136)])
@pytest.mark.parametrize("keep_pool", [False, True])
def test_names_shapes_and_size_are_torchvisions(batch_norm, parameters, keep_pool):
    with torch.device("meta"):
        encoder = VGG16Encoder(batch_norm=batch_norm, keep_pool=keep_pool)
    assert {k: tuple(v.shape) for k, v in encoder.state_dict().items()} == torchvision_shapes(batch_norm)
    assert sum(p.numel() for p in encoder.parameters()) == parameters


def panet():
    """PANet's encoder, built plainly."""
    layers, channels = [], 3
    for block, (count, width) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]):
        if block:
            layers.append(nn.MaxPool2d(3, stride=2 if block < 4 else 1, padding=1))
        for _ in range(count):
            rate = 2 if block == 4 else 1
            layers += [nn.Conv2d(channels, width, 3, padding=rate, dilation=rate), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers[:-1])


def feyjie():
    """Four blocks, the pools of the last two removed, the last block dilated by 2."""
    layers, channels = [], 3
    for block, (count, width) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512)]):
        if block in (1, 2):
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
        for _ in range(count):
            rate = 2 if block == 3 else 1
            layers += [nn.Conv2d(channels, width, 3, padding=rate, dilation=rate), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize(
    ("reference", "arguments"),
    [(panet, {}), (feyjie, {"num_blocks": 4, "stride": 4, "keep_pool": False})],
)
def test_agrees_with_the_published_encoders(reference, arguments):
    torch.manual_seed(0)
    encoder, reference = VGG16Encoder(**arguments).eval(), reference()
    reference.load_state_dict(
        dict(zip(reference.state_dict(), encoder.state_dict().values(), strict=True))
    )  # the same order, other names
    image = torch.rand(1, 3, 40, 33)
    with torch.no_grad():
        torch.testing.assert_close(encoder(image), reference(image))


def test_dilated_features_contain_the_undilated():
    torch.manual_seed(0)
    dilated = VGG16Encoder(stride=8, batch_norm=True).double().eval()
    plain = VGG16Encoder(stride=16, batch_norm=True).double().eval()
    plain.load_state_dict(dilated.state_dict())
    image = torch.randn(1, 3, 64, 80, dtype=torch.float64)
    with torch.no_grad():
        expected = plain(image)
        torch.testing.assert_close(dilated(image)[..., ::2, ::2], expected)
    assert expected.shape[2:] == (4, 5)
    assert expected.std() > 0.1


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (257, 9)])
@pytest.mark.parametrize(("num_blocks", "stride"), [(4, 4), (4, 8), (5, 8), (5, 16)])
def test_sizes_are_rounded_up(size, num_blocks, stride):
    encoder = VGG16Encoder(num_blocks=num_blocks, stride=stride).eval()
    with torch.no_grad():
        features = encoder(torch.rand(1, 1, *size))
    assert features.shape == (1, 512, *(math.ceil(s / stride) for s in size))
    assert (encoder.in_channels, encoder.out_channels, encoder.stride) == (3, 512, stride)
    assert features.min() < 0


def test_three_dimensions():
    encoder = VGG16Encoder(3, in_channels=1, num_blocks=4, batch_norm=True).eval()
    with torch.no_grad():
        assert encoder(torch.rand(1, 1, 8, 9, 16)).shape == (1, 512, 1, 2, 2)


def test_single_channel_is_repeated():
    encoder = VGG16Encoder(num_blocks=4).eval()
    image = torch.rand(2, 1, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(encoder(image), encoder(image.repeat(1, 3, 1, 1)))


def test_exports():
    encoder = VGG16Encoder(num_blocks=4, batch_norm=True).eval()
    image = torch.rand(1, 1, 17, 24)
    program = torch.export.export(encoder, (image,))
    torch.testing.assert_close(program.module()(image), encoder(image))


def test_errors():
    with pytest.raises(ValueError, match="num_blocks is 3, must be 4 or 5"):
        VGG16Encoder(num_blocks=3)
    with pytest.raises(ValueError, match=r"stride is 16, must be one of \(4, 8\) with 4 blocks"):
        VGG16Encoder(num_blocks=4, stride=16)
    with pytest.raises(ValueError, match=r"has 4 channels .*VGG16Encoder was made for 3"):
        VGG16Encoder()(torch.rand(1, 4, 32, 32))
