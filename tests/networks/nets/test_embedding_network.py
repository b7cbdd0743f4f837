# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
import weakref

import pytest
import torch
from monai.networks.nets import BasicUNet, BasicUNetPlusPlus, UNet

from monai_fewshot.networks.nets import EmbeddingNetwork

FEATURES = (4, 4, 8, 8, 16, 4)


@pytest.fixture
def image():
    torch.manual_seed(0)
    return torch.rand(2, 1, 32, 32)


def unet():
    torch.manual_seed(1)
    return BasicUNet(2, 1, 4, features=FEATURES)


def test_the_embedding_is_the_layers_output(image):
    base = unet()
    network = EmbeddingNetwork(base, "down_4")
    output = network(image)
    x = image
    for part in (base.conv_0, base.down_1, base.down_2, base.down_3, base.down_4):
        x = part(x)
    torch.testing.assert_close(output.embedding, x)
    torch.testing.assert_close(output.logits, base(image))


def test_in_evaluation_it_is_the_network(image):
    base = unet().eval()
    network = EmbeddingNetwork(base, "down_4").eval()
    assert torch.equal(network(image), base(image))


def test_gradients_reach_the_encoder_through_the_embedding_alone(image):
    network = EmbeddingNetwork(unet(), "down_4")
    network(image).embedding.square().sum().backward()
    moved = {name.split(".")[1] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"conv_0", "down_1", "down_2", "down_3", "down_4"}


def test_nothing_stays_behind(image):
    base = unet()
    network = EmbeddingNetwork(base, "down_4")
    embedding = network(image).embedding
    kept = weakref.ref(embedding)
    del embedding
    assert kept() is None
    with pytest.raises(RuntimeError):
        network(image[:, :, :3])
    assert list(network.state_dict()) == [f"network.{name}" for name in base.state_dict()]


def test_a_copy_has_an_embedding_of_its_own(image):
    network = EmbeddingNetwork(unet(), "down_4")
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.network.down_4.convs.conv_1.conv.bias += 1
    other.network.down_4.convs.conv_1.adn = torch.nn.Identity()
    network.network.down_4.convs.conv_1.adn = torch.nn.Identity()
    expected = network(image).embedding + 1
    torch.testing.assert_close(other(image).embedding, expected)


def test_it_compiles_as_one_graph_in_training_and_evaluation(image):
    network = EmbeddingNetwork(UNet(2, 1, 4, (4, 8, 16), (2, 2)), "model.1.submodule.1")
    expected = network(image)
    network.compile(fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(network(image), expected)
    assert network.eval()(image).shape == (2, 4, 32, 32)


@pytest.mark.parametrize(
    ("base", "layer"),
    [
        (BasicUNetPlusPlus(2, 1, 4, features=FEATURES, deep_supervision=True), "conv_4_0"),
        (UNet(2, 1, 4, (4, 8, 16), (2, 2)), "model.1.submodule.1"),
    ],
)
def test_other_networks_of_monai(base, layer, image):
    output = EmbeddingNetwork(base, layer)(image)
    assert output.logits.shape == (2, 4, 32, 32)
    assert output.embedding.shape[0] == 2
    assert output.embedding.ndim == 4


@pytest.mark.parametrize("layer", ["down_5", ""])
def test_an_unknown_layer_is_refused_with_those_there_are(layer):
    with pytest.raises(ValueError, match=f"BasicUNet has no layer '{layer}'; it has conv_0, down_1, down_2, "):
        EmbeddingNetwork(unet(), layer)
