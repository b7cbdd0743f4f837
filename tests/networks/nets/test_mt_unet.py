# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io

import pytest
import torch
from torch.nn import functional as F

from monai_fewshot.networks.nets import EmbeddingNetwork, MTUNet

NARROW = {"out_channels": 3, "stem_channels": (4, 6, 8), "channels": (8, 16, 24), "heads": 4, "memories": 8}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return MTUNet(**NARROW).eval()


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [({}, 79_074_237), ({"in_channels": 3}, 79_075_389), ({"in_channels": 3, "out_channels": 4}, 79_075_064)],
)
def test_number_of_parameters(arguments, parameters):
    with torch.device("meta"):
        network = MTUNet(**arguments)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_number_of_parameters_by_part():
    """Counted by hand from the widths."""

    def block(c):
        norms, window, axial, summary = 4 * c, 4 * (c * c + c), 4 * (c * c + c) + 2, 16 * (c + 1)
        join, query, keys, values = c * (2 * c + 1), 4 * c * (c + 1), 64 * (c // 8 + 1), (64 + 1) * c // 8
        return norms + window + axial + summary + join + query + keys + values + c * (4 * c + 1)

    with torch.device("meta"):
        network = MTUNet()
    found = [sum(p.numel() for p in level.parameters()) for level in network.levels]
    assert found == [2 * block(c) for c in (256, 512, 1024)]
    assert network.position.shape == (1, 256, 28, 28)
    assert [sum(p.numel() for p in up.blocks.parameters()) for up in network.up] == [2 * block(512)] * 2


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (48, 48), (80, 112), (224, 16), (144, 64), (224, 224)])
def test_any_multiple_of_16(network, size):
    with torch.no_grad():
        features = network.encode(torch.randn(2, 1, *size))
        logits, embedding = network.decode(features), features[-1]
    assert logits.shape == (2, 3, *size)
    assert embedding.shape == (2, 24, *(-(-edge // 32) for edge in size))
    assert logits.isfinite().all()


def test_every_multiple_of_16_trains():
    for edge in range(16, 145, 16):
        network = MTUNet(**NARROW)
        network(torch.randn(2, 1, edge, 64)).square().mean().backward()
        assert all(p.grad.isfinite().all() for p in network.parameters()), edge


@pytest.mark.parametrize("size", [(225, 224), (16, 24), (8, 8), (0, 16)])
def test_other_sizes_named(network, size):
    text = f"{size} pixels large, MTUNet needs multiples of 16; resize it, or pad it, .*DivisiblePad"
    with pytest.raises(ValueError, match=text.replace("(", r"\(").replace(")", r"\)")):
        network(torch.zeros(1, 1, *size))


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 32, 32), (1, 1, 32, 32, 32)])
def test_other_images_named(network, shape):
    with pytest.raises(ValueError, match=r"this MTUNet needs \(batch, 1, height, width\).*in_channels"):
        network(torch.zeros(shape))


def test_embedding_is_the_last_of_the_features(network):
    image = torch.randn(2, 1, 96, 64)
    features = network.encode(image)
    assert [tuple(x.shape[1:]) for x in features] == [
        (4, 96, 64), (6, 48, 32), (8, 24, 16), (8, 12, 8), (16, 6, 4), (24, 3, 2),
    ]  # fmt: skip
    assert torch.equal(network.decode(features), network(image))


def test_embedding_is_the_output_of_the_last_level(network):
    image = torch.randn(2, 1, 96, 64)
    with torch.no_grad():
        features = network.train().encode(image)
        found = EmbeddingNetwork(network, "levels.2").train()(image)
    assert torch.equal(found.logits, network.decode(features))
    assert torch.equal(found.embedding, features[-1])


def test_a_loss_on_the_embedding_reaches_the_encoder_alone(network):
    network.encode(torch.randn(2, 1, 64, 64))[-1].square().sum().backward()
    reached = {name.partition(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert reached == {"stem", "to_tokens", "position", "levels", "halve"}


def test_gradients_reach_every_parameter():
    torch.manual_seed(1)
    network = MTUNet(**NARROW).double()
    network(torch.randn(2, 1, 160, 160).double()).square().mean().backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    cancelled = ("among.bias", "memory_key.bias", "query.bias", "norm_external.bias", "residual.conv.bias")
    unmoved = [name for name, gradient in gradients.items() if gradient.abs().max() < 1e-15]
    assert [name for name in unmoved if not name.endswith(cancelled)] == []


def test_same_image_same_logits(network):
    image = torch.randn(2, 1, 80, 64)
    assert torch.equal(network(image), network(image))
    torch.testing.assert_close(network(image)[1:], network(image[1:]), rtol=1e-4, atol=1e-5)


def test_state_dict_round_trip(network):
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = MTUNet(**NARROW).eval()
    image = torch.randn(1, 1, 64, 64)
    assert not torch.equal(other(image), network(image))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(image), network(image))


def test_position_embedding_is_interpolated(network):
    torch.nn.init.normal_(network.position)
    assert network.position.shape == (1, 8, 28, 28)
    other = MTUNet(**NARROW, img_size=(64, 96)).eval()
    assert other.position.shape == (1, 8, 8, 12)
    state = network.state_dict()
    state["position"] = F.interpolate(network.position, (8, 12), mode="bilinear", align_corners=False)
    other.load_state_dict(state)
    image = torch.randn(1, 1, 64, 96)
    torch.testing.assert_close(other(image), network(image))


@pytest.mark.parametrize("channels", [(8, 16), (16, 8, 8), (8, 8, 16, 32)])
def test_other_widths_and_depths(channels):
    network = MTUNet(out_channels=2, in_channels=2, stem_channels=(3, 5, 7), channels=channels)
    features = network.encode(torch.randn(2, 2, 112, 48))
    assert network.decode(features).shape == (2, 2, 112, 48)
    assert features[-1].shape[1] == channels[-1]


def test_mixed_precision(network):
    image = torch.randn(2, 1, 80, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(image)
    expected = network(image)
    assert (found.float() - expected).abs().max() < 0.1 * expected.std()


def test_exports_in_one_graph(network):
    image = torch.randn(2, 1, 80, 112)
    program = torch.export.export(network, (image,))
    torch.testing.assert_close(program.module()(image), network(image))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"spatial_dims": 3}, "spatial_dims is 3, MTUNet is made for images: spatial_dims=2"),
        ({"stem_channels": (8, 8)}, r"stem_channels is \(8, 8\), MTUNet needs three"),
        ({"channels": (8,)}, r"channels is \(8,\), MTUNet needs two Transformer levels or more"),
        ({"channels": (8, 12)}, "12 channels do not divide among 8 heads"),
        ({"img_size": (224, 100)}, r"img_size is \(224, 100\), MTUNet needs multiples of 16"),
    ],
)
def test_constructor_errors(arguments, text):
    with pytest.raises(ValueError, match=text):
        MTUNet(**arguments)
