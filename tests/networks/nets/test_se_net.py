# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceLoss

from monai_fewshot.networks.nets import FewShotSENet
from monai_fewshot.networks.nets.se_net import _unpool


def _network(num_classes=1, **options):
    torch.manual_seed(0)
    return FewShotSENet(2, 1, num_classes, **{"conditioner_channels": 3, "channels": 5, "num_levels": 2, **options})


def _episode(batch=2, shots=1, classes=1, size=(33, 42)):
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(batch, 1, *size, generator=generator)
    support = torch.randn(batch, shots, 1, *size, generator=generator)
    label = torch.zeros(batch, shots, 1, *size)
    for number in range(classes):
        label[:, :, :, 6 + 12 * number : 16 + 12 * number, 8:30] = number + 1
    return image, support, label


def _trained(network):
    """Give batch normalization statistics, and weights, that are not those of the start."""
    network.train()
    for _ in range(3):
        network(*_episode(classes=network.num_classes))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def _block(weights, prefix, x):
    """Convolution, PReLU and batch normalization by plain functions."""
    w = {key[len(prefix) + 1 :]: value for key, value in weights.items() if key.startswith(prefix + ".")}
    x = F.conv2d(x, w["conv.weight"], w["conv.bias"], padding=w["conv.weight"].shape[-1] // 2)
    x = torch.where(x > 0, x, w["adn.A.weight"] * x)
    mean, variance = (w[f"adn.N.running_{name}"].view(1, -1, 1, 1) for name in ("mean", "var"))
    x = (x - mean) / (variance + 1e-5).sqrt()
    return x * w["adn.N.weight"].view(1, -1, 1, 1) + w["adn.N.bias"].view(1, -1, 1, 1)


def _unpooled(x, places, size):
    """Put values back one by one."""
    out = np.zeros((*x.shape[:2], size[0] * size[1]), np.float32)
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            for value, place in zip(x[b, c].flatten().tolist(), places[b, c].flatten().tolist(), strict=True):
                out[b, c, place] = value
    return torch.tensor(out).reshape(*x.shape[:2], *size)


def _arm(weights, name, x, levels, gates=None):
    found, places = [], []

    def gated(x):
        found.append(x if gates is None else x * gates[len(found)])
        return found[-1]

    for level in range(levels):
        full = _block(weights, f"{name}.down.{level}", x)
        pooled, index = F.max_pool2d(full, 2, return_indices=True)
        places.append((index, full.shape[2:]))
        x = gated(pooled)
    x = gated(_block(weights, f"{name}.bottleneck", x))
    for level in range(levels):
        x = gated(_block(weights, f"{name}.up.{level}", _unpooled(x, *places.pop())))
    return found


def _by_hand(network, image, support, mask):
    """Margin (H, W) of one query (C, H, W) after one shot with its mask (H, W)."""
    weights, levels = network.state_dict(), len(network.segmenter.down)
    looked_at = _arm(weights, "conditioner", torch.cat([support, mask[None]])[None], levels)
    gates = [
        torch.sigmoid(F.conv2d(x, weights[f"squeeze.{i}.conv.weight"], weights[f"squeeze.{i}.conv.bias"]))
        for i, x in enumerate(looked_at)
    ]
    last = _arm(weights, "segmenter", image[None], levels, gates)[-1]
    return F.conv2d(last, weights["decide.conv.weight"], weights["decide.conv.bias"])[0, 0]


@pytest.mark.parametrize(("num_classes", "shots"), [(1, 1), (2, 3)])
def test_agrees_with_plain_loops(num_classes, shots):
    network = _trained(_network(num_classes))
    image, support, label = _episode(shots=shots, classes=num_classes)
    label[1, -1][label[1, -1] == num_classes] = 0 if shots > 1 else 1
    with torch.no_grad():
        logits = network(image, support, label)
        assert logits.shape == (2, num_classes + 1, 33, 42)
        assert not logits[:, 0].any()
        for b in range(2):
            for c in range(1, num_classes + 1):
                margins = [
                    _by_hand(network, image[b], support[b, k], (label[b, k, 0] == c).float())
                    for k in range(shots)
                    if (label[b, k] == c).any()
                ]
                assert len(margins) == shots - (b == 1 and c == num_classes and shots > 1)
                torch.testing.assert_close(logits[b, c], sum(margins) / len(margins), atol=1e-5, rtol=1e-4)


def test_in_three_dimensions_of_odd_size():
    torch.manual_seed(0)
    network = FewShotSENet(3, channels=4, conditioner_channels=2, num_levels=2, kernel_size=3).eval()
    image, support, label = torch.rand(2, 1, 9, 10, 11), torch.rand(1, 2, 1, 9, 10, 11), torch.zeros(1, 2, 1, 9, 10, 11)
    label[..., 2:6, 2:6, 2:6] = 1
    assert network(image, support, label).shape == (2, 2, 9, 10, 11)


def test_unpooling_is_torchs():
    x, index = F.max_pool2d(torch.randn(2, 3, 9, 11), 2, return_indices=True)
    expected = F.max_unpool2d(x, index, 2, output_size=(9, 11))
    assert torch.equal(_unpool(x, index, (9, 11)), expected)


def test_the_size_of_the_published_network():
    network = FewShotSENet(2)
    block = lambda i, o: i * o * 25 + o + 1 + 2 * o  # noqa: E731
    arm = lambda i, o: block(i, o) + 8 * block(o, o)  # noqa: E731
    expected = arm(2, 16) + arm(1, 64) + 9 * (16 + 1) + (64 + 1)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_the_query_is_seen_through_the_gates_alone():
    """With the gates of another support the same query is segmented otherwise; without the mask's, likewise."""
    network, (image, support, label) = _trained(_network()), _episode()
    out = network(image, support, label)
    assert (network(image, support.flip(0), label) - out).abs().max() > 1e-3
    assert (network(image, support, label.flip(3)) - out).abs().max() > 1e-3


def test_a_class_that_no_shot_shows_is_not_found():
    network, (image, support, label) = _trained(_network(2)), _episode()
    logits = network(image, support, label)
    assert logits[:, 1].any()
    assert not logits[:, 2].any()


def test_one_context_serves_any_number_of_queries_of_any_size():
    network, (image, support, label) = _trained(_network()), _episode(batch=3)
    context = network.encode_support(support[:1], label[:1])
    torch.testing.assert_close(network.segment(image, context), network(image, support[:1], label[:1]))
    assert network.segment(image[..., :20, :40], context).shape == (3, 2, 20, 40)
    assert network.classify(image, context, (66, 84)).shape == (3, 2, 66, 84)


def test_every_weight_learns_with_dice():
    network, (image, support, label) = _network(), _episode()
    output = network.train()(image, support, label)
    DiceLoss(softmax=True, to_onehot_y=True)(output.logits, label[:, 0]).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_it_compiles_as_one_graph_that_gives_the_same():
    network, episode = _trained(_network()), _episode()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*episode), network(*episode))


def test_it_learns_to_follow_the_mask():
    """Two squares of one look: which of them is meant, only the support's mask tells."""
    torch.manual_seed(0)
    network = FewShotSENet(2, conditioner_channels=8, channels=8, num_levels=2, kernel_size=3)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    image = torch.zeros(2, 1, 32, 32)
    image[:, :, 4:12, 4:12] = image[:, :, 20:28, 20:28] = 1
    label = torch.zeros(2, 1, 32, 32)
    label[0, 0, 4:12, 4:12] = label[1, 0, 20:28, 20:28] = 1
    loss = DiceLoss(softmax=True, to_onehot_y=True)
    for _ in range(60):
        optimizer.zero_grad()
        noisy = image + 0.1 * torch.randn_like(image)
        loss(network(noisy, noisy[:, None], label[:, None]).logits, label).backward()
        optimizer.step()
    mask = network(image, image[:, None], label[:, None]).logits.argmax(1, keepdim=True)
    dice = 2 * (mask * label).sum((1, 2, 3)) / (mask + label).sum((1, 2, 3))
    assert dice.min() > 0.9


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3, got 4"):
        FewShotSENet(4)
    for wrong in ({"num_levels": 0}, {"num_classes": 0}, {"kernel_size": 4}):
        with pytest.raises(ValueError, match=r"must be 1 or more and kernel_size odd, got \d, \d and \d"):
            FewShotSENet(2, **wrong)
