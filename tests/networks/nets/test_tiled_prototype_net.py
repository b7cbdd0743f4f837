# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from monai_fewshot.losses import EpisodeLoss
from monai_fewshot.networks.blocks import TrainingTarget
from monai_fewshot.networks.encoders import UNetEncoder, VGG16Encoder
from monai_fewshot.networks.nets import TiledPrototypeNet


def _network(num_classes=1, **options):
    torch.manual_seed(0)
    return TiledPrototypeNet(2, UNetEncoder(2, 3, (4, 8), 6), num_classes, channels=(8, 6, 4), **options).eval()


def _episode(batch=2, shots=1, classes=1, size=(34, 40)):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(batch, 3, *size, generator=generator)
    support = torch.rand(batch, shots, 3, *size, generator=generator)
    label = torch.zeros(batch, shots, 1, *size)
    for number in range(classes):
        label[:, :, :, 6 + 12 * number : 16 + 12 * number, 8:30] = number + 1
    return image, support, label


def _by_hand(network, image, support, label):
    """One query (C, H, W) and K shots of one class, by plain functions."""
    query = network.encoder(image[None])
    prototypes = []
    for shot, mask in zip(support, label, strict=True):
        features = network.encoder(shot[None])
        small = F.interpolate((mask == 1).float()[None], features.shape[2:], mode="bilinear", align_corners=False)
        prototypes.append((features * small).sum((2, 3)) / (small.sum() + 1e-5))
    prototype = torch.stack(prototypes).mean(0)
    x = network.mix(torch.cat([query, prototype[:, :, None, None].expand_as(query)], dim=1))
    full = image.shape[1:]
    for block in network.decoder.blocks:
        size = [min(2 * n, m) for n, m in zip(x.shape[2:], full, strict=True)]
        x = block(F.interpolate(x, size, mode="bilinear", align_corners=False))
    margin = network.decide(x)
    return torch.cat([torch.zeros_like(margin), margin], dim=1)[0]


@pytest.mark.parametrize("shots", [1, 3])
def test_agrees_with_plain_functions(shots):
    network, (image, support, label) = _network(), _episode(shots=shots)
    out = network(image, support, label)
    assert out.shape == (2, 2, 34, 40)
    for number in range(2):
        expected = _by_hand(network, image[number], support[number], label[number])
        torch.testing.assert_close(out[number], expected, atol=1e-5, rtol=1e-4)


def test_classes_are_segmented_as_if_alone():
    image, support, label = _episode(classes=2, shots=2)
    both = _network(2)(image, support, label)
    assert both.shape[1] == 3
    assert not both[:, 0].any()
    for number in (1, 2):
        alone = _network()(image, support, (label == number).float())
        torch.testing.assert_close(both[:, number], alone[:, 1], atol=1e-5, rtol=1e-4)


def test_a_shot_that_does_not_show_the_class_does_not_count():
    network, (image, support, label) = _network(), _episode(shots=2)
    label[:, 1] = 0
    torch.testing.assert_close(network(image, support, label), network(image, support[:, :1], label[:, :1]))


def test_the_binary_softmax_is_the_sigmoid_of_the_margin():
    logits = _network()(*_episode())
    torch.testing.assert_close(logits.softmax(1)[:, 1], logits[:, 1].sigmoid())


def test_the_papers_encoder_brings_features_of_a_quarter_back_to_full_size():
    network = TiledPrototypeNet(2, VGG16Encoder(num_blocks=4, stride=4, keep_pool=False), channels=(8, 6, 4)).eval()
    assert network.encode_query(torch.rand(1, 3, 32, 32)).shape == (1, 512, 8, 8)
    assert len(network.decoder.blocks) == 2
    assert network(*_episode(size=(32, 32))).shape == (2, 2, 32, 32)


def test_every_weight_learns():
    network = _network().train()
    image, support, label = _episode()
    EpisodeLoss()(network(image, support, label), TrainingTarget(label[:, 0], label)).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
