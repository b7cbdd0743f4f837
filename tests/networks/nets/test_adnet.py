# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from monai_fewshot.losses import EpisodeLoss
from monai_fewshot.networks.blocks import TrainingTarget
from monai_fewshot.networks.encoders import UNetEncoder
from monai_fewshot.networks.nets import ADNet


def _network(num_classes=1, **options):
    torch.manual_seed(0)
    return ADNet(2, nn.Conv2d(1, 6, 3, stride=2, padding=1), num_classes, **options)


def _episode(batch=2, shots=1, classes=1, size=(24, 30)):
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(batch, 1, *size, generator=generator)
    support = torch.randn(batch, shots, 1, *size, generator=generator)
    label = torch.zeros(batch, shots, 1, *size)
    for number in range(classes):
        label[:, :, :, 3 + 8 * number : 10 + 8 * number, 5:22] = number + 1
    return image, support, label


def _average(features, mask):
    """Mean of features (C, h, w), brought to the mask's size (H, W), under it, pixel by pixel."""
    full = F.interpolate(features[None], mask.shape, mode="bilinear", align_corners=False)[0]
    inside = [full[:, y, x] for y, x in mask.nonzero().tolist()]
    return torch.stack(inside).mean(0)


def _probability(features, prototype, threshold):
    """The paper's probability of each feature (C, h, w), one by one."""
    out = torch.empty(features.shape[1:])
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            anomaly = -20 * torch.dot(features[:, y, x], prototype) / (features[:, y, x].norm() * prototype.norm())
            out[y, x] = 1 - 1 / (1 + torch.exp(-0.5 * (anomaly - threshold)))
    return out


@pytest.mark.parametrize(("num_classes", "shots"), [(1, 1), (2, 3)])
def test_agrees_with_plain_loops(num_classes, shots):
    network = _network(num_classes, threshold=-3.0).eval()
    image, support, label = _episode(shots=shots, classes=num_classes)
    with torch.no_grad():
        features = network.encode_query(image)
        scores = network.scores(features, network.encode_support(support, label))
        logits = network(image, support, label)
        of_support = [network.encode_query(shots) for shots in support]
    assert not scores[:, 0].any()
    for b in range(2):
        for c in range(1, num_classes + 1):
            by_shot = [_average(f, mask[0] == c) for f, mask in zip(of_support[b], label[b], strict=True)]
            expected = _probability(features[b], sum(by_shot) / shots, -3.0)
            torch.testing.assert_close(scores[b, c].sigmoid(), expected, atol=1e-5, rtol=1e-4)
    full = F.interpolate(scores, image.shape[2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(logits, full)


def test_the_query_segments_the_support_in_training():
    network, (image, support, label) = _network(threshold=-3.0).train(), _episode(shots=2)
    output = network(image, support, label)
    turned = output.support_logits
    assert turned.shape == (2, 2, 2, 24, 30)
    assert output.auxiliary_loss.item() == pytest.approx(-3 / 20)
    with torch.no_grad():
        features = network.encode_query(image)
        scores = network.scores(features, network.encode_support(support, label))
        for b in range(2):
            mask = scores[b, 1] > 0
            prototype = torch.stack([features[b][:, y, x] for y, x in mask.nonzero().tolist()]).mean(0)
            for k in range(2):
                expected = _probability(network.encode_query(support[b, k : k + 1])[0], prototype, -3.0)
                margin = F.interpolate(torch.logit(expected.double())[None, None], image.shape[2:], mode="bilinear")
                torch.testing.assert_close(turned[b, k, 1].double(), margin[0, 0], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(output.logits, network.eval()(image, support, label))


def test_a_class_that_is_not_found_costs_no_alignment():
    network, (image, support, label) = _network(threshold=-19.999).train(), _episode()
    output = network(image, support, label)
    assert (output.logits[:, 1] < 0).all()
    assert (output.support_logits[:, :, 1] == -torch.inf).all()
    target = TrainingTarget(label[:, 0], label)
    both, alone = (EpisodeLoss()(found, target) for found in (output, output._replace(support_logits=None)))
    assert both.item() == pytest.approx(alone.item())


def test_a_lower_threshold_finds_less():
    episode = _episode()
    found = [(_network(threshold=t).eval()(*episode)[:, 1] > 0).sum().item() for t in (-15, -5, 5)]
    assert found[0] < found[1] < found[2]


def test_every_weight_learns_the_threshold_among_them():
    torch.manual_seed(0)
    network, (image, support, label) = ADNet(2, UNetEncoder(2, 1, (4, 8), 6)).train(), _episode(size=(32, 32))
    EpisodeLoss(0.1)(network(image, support, label), TrainingTarget(label[:, 0], label)).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert network.threshold.grad != 0


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3 and num_classes 1 or more, got 2 and 0"):
        _network(0)
    with pytest.raises(ValueError, match=r"between -scale and scale, got 20\.0 and a scale of 20\.0"):
        _network(threshold=20.0)
