# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from monai_fewshot.networks.encoders import DilatedResNetEncoder, UNetEncoder, VGG16Encoder
from monai_fewshot.networks.nets import MaskSplitNet


def _encoder():
    torch.manual_seed(0)
    return UNetEncoder(2, 3, channels=(4, 8), out_channels=None)


def _network(**options):
    torch.manual_seed(0)
    options = {"freeze_encoder": False, **options}
    return MaskSplitNet(2, _encoder(), channels=8, decoder_channels=(8, 8, 8), **options)


def _episode(batch=2, shots=1, classes=1, size=(32, 40)):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(batch, 3, *size, generator=generator)
    support = torch.rand(batch, shots, 3, *size, generator=generator)
    label = torch.zeros(batch, shots, 1, *size)
    for number in range(classes):
        label[:, :, :, 6 + 10 * number : 14 + 10 * number, 8:30] = number + 1
    return image, support, label


def _by_hand(network, image, support, label):
    """One query (C, H, W), one shot and one class, by plain functions."""
    levels, of_support = (
        [p(x) for p, x in zip(network.project, network.encoder.levels(i[None]), strict=True)] for i in (image, support)
    )
    size = max(tuple(x.shape[2:]) for x in levels)
    beside = []
    for query, shot in zip(levels, of_support, strict=True):
        query, shot = (F.interpolate(x, size, mode="bilinear", align_corners=False) for x in (query, shot))
        mask = F.interpolate((label == 1).float()[None], size, mode="bilinear", align_corners=False)
        vector = (shot * mask).sum((2, 3)) / (mask.sum() + 1e-5)
        beside.append(torch.cat([query, vector[:, :, None, None].expand_as(query)], dim=1))
    margin = network.decide(network.decoder(network.mix(torch.cat(beside, dim=1)), image.shape[1:]))
    return torch.cat([torch.zeros_like(margin), margin], dim=1)[0]


def test_agrees_with_plain_functions():
    network, (image, support, label) = _network().eval(), _episode()
    out = network(image, support, label)
    assert out.shape == (2, 2, 32, 40)
    for number in range(2):
        expected = _by_hand(network, image[number], support[number, 0], label[number, 0])
        torch.testing.assert_close(out[number], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shots", ["prototypes", "predictions"])
def test_one_shot_is_the_same_either_way_and_equal_shots_count_as_one(shots):
    network, (image, support, label) = _network(shots=shots).eval(), _episode()
    out = network(image, support, label)
    torch.testing.assert_close(out, _network().eval()(image, support, label))
    tripled = network(image, support.expand(-1, 3, -1, -1, -1), label.expand(-1, 3, -1, -1, -1))
    torch.testing.assert_close(tripled, out, atol=1e-5, rtol=1e-4)


def test_shots_are_averaged_as_prototypes_or_as_predictions():
    image, support, label = _episode(shots=3)
    network = _network(shots="predictions").eval()
    single = torch.stack([network(image, support[:, k : k + 1], label[:, k : k + 1]) for k in range(3)]).mean(0)
    torch.testing.assert_close(network(image, support, label), single, atol=1e-5, rtol=1e-4)
    pooled = _network().eval()
    vectors = [pooled.encode_support(support[:, k : k + 1], label[:, k : k + 1]).vectors for k in range(3)]
    context = pooled.encode_support(support, label)
    torch.testing.assert_close(context.vectors, torch.stack(vectors).mean(0), atol=1e-6, rtol=1e-4)
    assert (pooled(image, support, label) - single).abs().max() > 1e-4


@pytest.mark.parametrize("shots", ["prototypes", "predictions"])
def test_a_shot_that_does_not_show_the_class_does_not_count(shots):
    image, support, label = _episode(shots=2)
    label[:, 1] = 0
    network = _network(shots=shots).eval()
    torch.testing.assert_close(
        network(image, support, label), network(image, support[:, :1], label[:, :1]), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("shots", ["prototypes", "predictions"])
def test_a_class_that_no_shot_shows_is_not_found(shots):
    image, support, label = _episode(shots=2)
    assert not _network(shots=shots).eval()(image, support, 0 * label).any()


def test_classes_are_segmented_as_if_alone():
    image, support, label = _episode(classes=2, shots=2)
    both = _network(num_classes=2).eval()(image, support, label)
    assert both.shape[1] == 3
    for number in (1, 2):
        alone = _network().eval()(image, support, (label == number).float())
        torch.testing.assert_close(both[:, number], alone[:, 1], atol=1e-5, rtol=1e-4)


def test_the_halves_of_the_contract_are_the_whole():
    network, (image, support, label) = _network().eval(), _episode()
    context = network.encode_support(support[:1], label[:1])
    torch.testing.assert_close(
        network.segment(image, context), network(image, support[:1], label[:1]), atol=1e-5, rtol=1e-4
    )


def test_a_frozen_trunk_neither_learns_nor_drifts():
    torch.manual_seed(0)
    network = MaskSplitNet(2, DilatedResNetEncoder(18, out_channels=None), channels=8, decoder_channels=(8, 8, 8))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    network(*_episode(size=(32, 32))).logits.sum().backward()
    torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 1.0).step()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("encoder."), name
    assert not network.encoder.training
    assert network.mix.training
    assert all(p.grad is None for p in network.encoder.parameters())


@pytest.mark.parametrize(
    "encoder",
    [
        lambda: DilatedResNetEncoder(18, out_channels=None),
        lambda: DilatedResNetEncoder(18),
        lambda: VGG16Encoder(num_blocks=4, stride=4, keep_pool=False),
        lambda: UNetEncoder(2, 3, channels=(4, 8)),
        _encoder,
    ],
)
def test_every_weight_of_a_free_trunk_learns(encoder):
    network = MaskSplitNet(2, encoder(), channels=8, decoder_channels=(8, 8, 8), freeze_encoder=False).train()
    image, support, label = _episode(size=(48, 48))
    network(image, support, label).logits[:, 1].square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert without == []


def test_the_size_of_the_papers_modules():
    network = MaskSplitNet(2, DilatedResNetEncoder(18, out_channels=None))
    convolution = lambda i, o, k: i * o * k * k + o  # noqa: E731
    norms = lambda *widths: sum(2 * w for w in widths)  # noqa: E731
    counted = sum(p.numel() for n, p in network.named_parameters() if not n.startswith("encoder."))
    expected = sum(convolution(width, 128, 3) for width in (128, 256, 512)) + norms(128, 128, 128)
    expected += convolution(768, 128, 3) + norms(128)
    for i, o in ((128, 128), (128, 64), (64, 32)):
        expected += convolution(i, o, 3) + convolution(o, o, 3) + norms(o, o)
    expected += convolution(32, 16, 3) + norms(16) + convolution(16, 1, 1)
    assert counted == expected


def test_unknown_averaging():
    with pytest.raises(ValueError, match="shots is 'votes', must be 'prototypes' or 'predictions'"):
        _network(shots="votes")


@pytest.mark.parametrize(
    ("encoder", "channels"),
    [
        (lambda: DilatedResNetEncoder(50), (512, 1024, 2048)),
        (lambda: DilatedResNetEncoder(18), (128, 256, 512)),
        (lambda: VGG16Encoder(), (256, 512, 512)),
        (lambda: VGG16Encoder(num_blocks=4, stride=4), (128, 256, 512)),
        (lambda: UNetEncoder(2, 3), (256, 128, 64, 32)),
    ],
)
def test_levels_of_encoders(encoder, channels):
    network = encoder().eval()
    assert network.level_channels == channels
    image = torch.rand(1, 3, 32, 40)
    levels = network.levels(image)
    assert tuple(level.shape[1] for level in levels) == channels
    reduce = getattr(network, "reduce", getattr(network, "project", nn.Identity()))
    torch.testing.assert_close(reduce(levels[-1]), network(image))
    network.remove_projection()
    torch.testing.assert_close(levels[-1], network(image))
    assert network.out_channels == channels[-1]
