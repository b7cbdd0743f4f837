# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch
from monai.networks.nets.resnet import ResNet

from monai_fewshot.networks.encoders import DilatedResNetEncoder

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
TRUNK_PARAMETERS = {18: 11_176_512, 50: 23_508_032, 101: 42_500_160}


def torchvision_shapes(depth):
    """Names and shapes of torchvision's resnet without its fc, written down from its published structure."""
    expansion = 1 if depth == 18 else 4
    shapes = {"conv1.weight": (64, 3, 7, 7)}

    def norm(name, width):
        shapes.update({f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("bn1", 64)
    channels = 64
    for stage, (count, width) in enumerate(zip(BLOCKS[depth], (64, 128, 256, 512), strict=True), 1):
        for block in range(count):
            name, out = f"layer{stage}.{block}", width * expansion
            kernels = [(width, channels, 3), (width, width, 3)]
            if expansion == 4:
                kernels = [(width, channels, 1), (width, width, 3), (out, width, 1)]
            for i, (o, c, k) in enumerate(kernels, 1):
                shapes[f"{name}.conv{i}.weight"] = (o, c, k, k)
                norm(f"{name}.bn{i}", o)
            if block == 0 and (stage > 1 or channels != out):
                shapes[f"{name}.downsample.0.weight"] = (out, channels, 1, 1)
                norm(f"{name}.downsample.1", out)
            channels = out
    return shapes


def randomize_statistics(module):
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.8, 1.2)


@pytest.mark.parametrize("depth", [18, 50, 101])
def test_names_shapes_and_size_are_torchvisions(depth):
    with torch.device("meta"):
        encoder = DilatedResNetEncoder(depth, out_channels=None)
    assert {k: tuple(v.shape) for k, v in encoder.state_dict().items()} == torchvision_shapes(depth)
    assert sum(p.numel() for p in encoder.parameters()) == TRUNK_PARAMETERS[depth]
    assert encoder.out_channels == (512 if depth == 18 else 2048)


@pytest.mark.parametrize("depth", [50, 101])
def test_dilations_are_those_of_deeplab(depth):
    with torch.device("meta"):
        encoder = DilatedResNetEncoder(depth)
    for stage, first, rest in ((encoder.layer2, 1, 1), (encoder.layer3, 1, 2), (encoder.layer4, 2, 4)):
        assert [block.conv2.dilation for block in stage] == [(first,) * 2] + [(rest,) * 2] * (len(stage) - 1)
    assert encoder.layer2[0].conv2.stride == (2, 2)
    assert encoder.layer2[0].conv1.stride == (1, 1)
    assert encoder.layer3[0].conv2.stride == encoder.layer3[0].downsample[0].stride == (1, 1)


@pytest.mark.parametrize(("depth", "stride"), [(18, 8), (18, 16), (50, 8)])
def test_dilated_features_contain_the_undilated(depth, stride):
    """f32(x) = f_stride(x * 32 / stride), exactly: on this grid the zero padding of both is the same."""
    torch.manual_seed(0)
    encoder = DilatedResNetEncoder(depth, out_channels=None, stride=stride).double().eval()
    randomize_statistics(encoder)
    block = "basic" if depth == 18 else "bottleneck"
    plain = ResNet(
        block, list(BLOCKS[depth]), [64, 128, 256, 512], 2, conv1_t_stride=2, feed_forward=False, bias_downsample=False
    )
    plain.double().eval().load_state_dict(encoder.state_dict())
    plain.avgpool = torch.nn.Identity()
    image = torch.randn(1, 3, 128, 160, dtype=torch.float64)
    with torch.no_grad():
        expected = plain(image).reshape(1, -1, 4, 5)
        features = encoder(image)
    step = 32 // stride
    torch.testing.assert_close(features[..., ::step, ::step], expected)
    assert features.shape[2:] == (4 * step, 5 * step)
    assert expected.std() > 0.1


@pytest.mark.parametrize("size", [(64, 64), (65, 33), (257, 255), (17, 90)])
@pytest.mark.parametrize("stride", [8, 32])
def test_sizes_are_rounded_up(size, stride):
    encoder = DilatedResNetEncoder(18, stride=stride).eval()
    with torch.no_grad():
        features = encoder(torch.rand(1, 3, *size))
    assert features.shape == (1, 256, *(math.ceil(s / stride) for s in size))
    assert (encoder.out_channels, encoder.stride) == (256, stride)


def test_three_dimensions():
    encoder = DilatedResNetEncoder(18, 3, in_channels=1, out_channels=16).eval()
    with torch.no_grad():
        assert encoder(torch.rand(1, 1, 32, 33, 16)).shape == (1, 16, 4, 5, 2)


def test_single_channel_is_repeated():
    encoder = DilatedResNetEncoder(18).eval()
    image = torch.rand(2, 1, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(encoder(image), encoder(image.repeat(1, 3, 1, 1)))


def test_reduction_is_a_convolution_of_the_trunk_without_bias():
    encoder = DilatedResNetEncoder(18, out_channels=7).eval()
    raw = DilatedResNetEncoder(18, out_channels=None).eval()
    raw.load_state_dict({k: v for k, v in encoder.state_dict().items() if not k.startswith("reduce")})
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = torch.einsum("oc,bchw->bohw", encoder.reduce.weight[:, :, 0, 0], raw(image))
        torch.testing.assert_close(encoder(image), expected, rtol=1e-4, atol=1e-4)


def test_every_parameter_learns():
    encoder = DilatedResNetEncoder(18, out_channels=8)
    encoder(torch.rand(2, 1, 32, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_exports():
    encoder = DilatedResNetEncoder(18, out_channels=8).eval()
    image = torch.rand(1, 1, 33, 40)
    program = torch.export.export(encoder, (image,))
    torch.testing.assert_close(program.module()(image), encoder(image))


def test_errors():
    with pytest.raises(ValueError, match=r"depth is 34, must be one of \(18, 50, 101\)"):
        DilatedResNetEncoder(34)
    with pytest.raises(ValueError, match=r"stride is 4, must be one of \(8, 16, 32\)"):
        DilatedResNetEncoder(18, stride=4)
    with pytest.raises(ValueError, match=r"has 2 channels .*DilatedResNetEncoder was made for 3"):
        DilatedResNetEncoder(18)(torch.rand(1, 2, 32, 32))
