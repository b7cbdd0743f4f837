# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from prototype_episodes import TwoLayers, golden_cases, random_episodes
from torch import nn
from torch.utils._pytree import tree_map

from monai_fewshot.losses import AlignmentLoss, EpisodeLoss
from monai_fewshot.networks.blocks import TrainingTarget
from monai_fewshot.networks.encoders import DilatedResNetEncoder, UNetEncoder, VGG16Encoder
from monai_fewshot.networks.nets import ALPNet, PANet


def cosines(features, prototype):
    """20 times the cosine of each feature (C, h, w) to a prototype, pixel by pixel."""
    out = np.zeros(features.shape[1:])
    for place in np.ndindex(*out.shape):
        feature = features[(slice(None), *place)]
        out[place] = (
            20 * feature @ prototype / max(np.linalg.norm(feature), 1e-4) / max(np.linalg.norm(prototype), 1e-4)
        )
    return out


def resized(scores, size):
    return F.interpolate(torch.tensor(np.stack(scores))[None], size, mode="bilinear")[0].numpy()


def pooled_at_mask_size(features, mask):
    """Average of features (C, h, w), brought to the size of a mask (H, W), one pixel after another."""
    features = F.interpolate(torch.tensor(features)[None], mask.shape, mode="bilinear")[0].numpy()
    total, count = np.zeros(len(features)), 0
    for place in zip(*np.nonzero(mask), strict=True):
        total, count = total + features[(slice(None), *place)], count + 1
    return total / (count + 1e-5)


def one_way_after_another(network, image, support_image, support_mask):
    """PANet on one episode, image (C, H, W), support (way, shot, C, H, W), its way's mask (way, shot, H, W).

    Returns logits and the alignment loss.
    """
    ways, shots = support_mask.shape[:2]
    size = image.shape[1:]
    with torch.no_grad():
        query = network.encoder(image[None])[0].double().numpy()
        support = network.encoder(support_image.flatten(0, 1)).unflatten(0, (ways, shots)).double().numpy()
    masks = support_mask.numpy()
    foreground = [
        sum(pooled_at_mask_size(support[w, k], masks[w, k]) for k in range(shots)) / shots for w in range(ways)
    ]
    pairs = [(w, k) for w in range(ways) for k in range(shots)]
    background = sum(pooled_at_mask_size(support[pair], 1 - masks[pair]) for pair in pairs) / len(pairs)
    scores = [cosines(query, prototype) for prototype in (background, *foreground)]
    predicted = np.stack(scores).argmax(0)
    own = [(query * (predicted == c)).sum((1, 2)) / ((predicted == c).sum() + 1e-5) for c in range(ways + 1)]
    loss = 0.0
    for w, k in pairs:
        if (predicted == w + 1).any():
            turned = resized([cosines(support[w, k], own[c]) for c in (0, w + 1)], size)
            target = torch.tensor(masks[w, k]).long()[None]
            loss += F.cross_entropy(torch.tensor(turned)[None], target).item() / len(pairs)
    return resized(scores, size), loss


def way_masks(ways, shots, size=(40, 36)):
    """Blocks of another size and place in every image, (way, shot, H, W)."""
    mask = torch.zeros(ways, shots, *size)
    for w, k in np.ndindex(ways, shots):
        mask[w, k, 5 + 9 * w : 17 + 10 * w, 4 + 3 * k : 15 + 6 * k] = 1
    return mask


def as_support(support_image, support_mask):
    """Images and masks by way and shot as one support (1, way * shot, ...)."""
    numbers = torch.arange(1, len(support_mask) + 1).view(-1, 1, 1, 1)
    return support_image.flatten(0, 1)[None], (support_mask * numbers).flatten(0, 1)[None, :, None]


@pytest.mark.parametrize(("ways", "shots"), [(1, 1), (1, 3), (2, 1), (3, 2)])
def test_agrees_with_plain_loops(ways, shots):
    torch.manual_seed(ways)
    network = PANet(2, TwoLayers(), ways).train()
    image, support_image, mask = torch.randn(3, 40, 36), torch.randn(ways, shots, 3, 40, 36), way_masks(ways, shots)
    support_image += 3 * mask[:, :, None] * torch.arange(1, ways + 1).view(-1, 1, 1, 1, 1)
    support = as_support(support_image, mask)
    output = network(image[None], *support)
    expected, loss = one_way_after_another(network, image, support_image, mask)
    np.testing.assert_allclose(output.logits[0].detach(), expected, atol=1e-4, rtol=1e-5)
    assert AlignmentLoss()(output.support_logits, support[1]).item() == pytest.approx(loss, rel=1e-4)


def test_agrees_with_the_original(golden_dir):
    shapes = []
    for case in golden_cases(golden_dir / "panet.npz"):
        mask = torch.tensor(case["support_mask"])
        shapes.append(tuple(mask.shape[:2]))
        network = PANet(2, TwoLayers(), len(mask)).train()
        network.load_state_dict({k: torch.tensor(v) for k, v in case.items() if k.startswith("encoder.")})
        support = as_support(torch.tensor(case["support_image"]), mask)
        output = network(torch.tensor(case["query_image"]), *support)
        np.testing.assert_allclose(output.logits.detach(), case["logits"], atol=5e-5, rtol=1e-5)
        loss = AlignmentLoss()(output.support_logits, support[1])
        np.testing.assert_allclose(loss.item(), case["alignment_loss"], rtol=1e-5)
        ((output.logits**2).mean() + loss).backward()
        gradient = case["grad.encoder.a.weight"]
        np.testing.assert_allclose(network.encoder.a.weight.grad, gradient, atol=5e-6 * abs(gradient).max())
    assert {ways for ways, _ in shapes} > {1}
    assert max(shots for _, shots in shapes) > 1


def test_gradients_are_those_of_features_brought_to_the_size_of_the_label():
    torch.manual_seed(0)
    network = PANet(2, nn.Identity(), 2)
    features = torch.randn(2, 3, 5, 7, 6, dtype=torch.float32, requires_grad=True)
    label = torch.randint(0, 3, (2, 3, 1, 29, 24)).float()
    label[0, 1] = 255
    prototypes = network.prototypes(features, label)
    large = F.interpolate(features.flatten(0, 1), (29, 24), mode="bilinear").unflatten(0, (2, 3))
    masks = torch.stack([(label[:, :, 0] == c).float() for c in range(3)], dim=2)
    sums = (large[:, :, None] * masks[:, :, :, None]).sum((4, 5))
    expected = (sums / (masks.sum((3, 4)) + 1e-5)[..., None]).mean(1)
    torch.testing.assert_close(prototypes, expected)
    weight = torch.randn_like(expected)
    gradients = [torch.autograd.grad((x * weight).sum(), features)[0] for x in (prototypes, expected)]
    torch.testing.assert_close(*gradients)


def test_a_class_that_the_query_does_not_show_is_not_aligned():
    torch.manual_seed(0)
    network = PANet(2, nn.Identity(), 2).train()
    directions = torch.eye(3)
    label = torch.zeros(1, 1, 1, 12, 12)
    label[..., :4, :] = 1
    label[..., 8:, :] = 2
    support_image = directions[label[0, 0, 0].long()].movedim(-1, 0)[None, None] + 0.1 * torch.rand(1, 1, 3, 12, 12)
    image = support_image[0, :, :, :8].repeat(1, 1, 2, 1)[:, :, :12].requires_grad_()
    output = network(image, support_image, label)
    logits, support_logits = output.logits, output.support_logits
    assert set(logits.argmax(1).unique().tolist()) == {0, 1}
    assert (support_logits[:, :, 2] == -torch.inf).all()
    assert support_logits[:, :, :2].isfinite().all()
    loss = AlignmentLoss(reduction="none")(support_logits, label)
    assert loss[0, 0, 0] > 0
    assert loss[0, 0, 1] == 0
    loss.sum().backward()
    assert image.grad.isfinite().all()
    assert image.grad.any()


@pytest.mark.parametrize("kind", ["empty", "full", "pixel", "ignored", "first shot alone"])
def test_episodes_that_leave_little_to_pool_from(kind):
    torch.manual_seed(0)
    network = PANet(2, TwoLayers()).train()
    image, support_image, label = random_episodes(shots=2)
    label[:] = {"full": 1, "ignored": 255}.get(kind, 0)
    if kind == "pixel":
        label[..., 30, 21] = 1
    if kind == "first shot alone":
        label[:, :1, :, 8:40, 8:40] = 1
    out = network(image, support_image, label)
    assert out.logits.isfinite().all()
    loss = EpisodeLoss()(out, TrainingTarget((image[:, :1] > 0).float(), label))
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("training", [False, True])
def test_a_batch_equals_its_episodes_one_by_one(training):
    torch.manual_seed(0)
    network = PANet(2, TwoLayers(), num_classes=2).train(training)
    image, support_image, label = random_episodes(batch=4, shots=2, num_classes=2)
    label[1, :, :, :17] = 0
    together = network(image, support_image, label)
    for b in range(4):
        alone = network(image[b : b + 1], support_image[b : b + 1], label[b : b + 1])
        for one, all_of_them in zip(alone[:2], together[:2], strict=True) if training else [(alone, together)]:
            torch.testing.assert_close(one[0], all_of_them[b], atol=2e-4, rtol=1e-5)


def test_halves_compose_and_one_support_serves_any_number_of_queries():
    network = PANet(2, TwoLayers(), num_classes=2).eval()
    image, support_image, label = random_episodes(batch=3, shots=2, num_classes=2)
    context = network.encode_support(support_image[:1], label[:1])
    logits = network(image, support_image[:1], label[:1])
    torch.testing.assert_close(network.segment(image, context), logits)
    repeated = tree_map(lambda tensor: tensor[torch.zeros(3, dtype=torch.long)], context)
    torch.testing.assert_close(network.segment(image, repeated), logits)
    assert network.classify(network.encode_query(image), context, (10, 7)).shape == (3, 3, 10, 7)
    assert network.train()(image, support_image[:1], label[:1]).support_logits.shape == (3, 2, 3, 64, 48)
    assert PANet(2, TwoLayers(), align=False).train()(*random_episodes()).support_logits is None


@pytest.mark.parametrize(
    "encoder",
    [VGG16Encoder(), DilatedResNetEncoder(depth=18, stride=8), UNetEncoder(2, 1, channels=(4, 8), out_channels=8)],
    ids=["VGG-16", "ResNet", "U-Net"],
)
def test_encoders(encoder):
    network = PANet(2, encoder).train()
    image, support_image, label = random_episodes(batch=1, channels=1, size=(33, 40))
    output = network(image, support_image, label)
    assert output.logits.shape == (1, 2, 33, 40)
    EpisodeLoss()(output, TrainingTarget(label[:, 0], label)).backward()
    assert next(encoder.parameters()).grad.any()


def test_three_dimensions():
    torch.manual_seed(0)
    network = PANet(3, nn.Conv3d(1, 6, 3, stride=2, padding=1)).eval()
    image, support_image, label = (
        torch.randn(2, 1, 9, 8, 7),
        torch.randn(2, 2, 1, 9, 8, 7),
        torch.zeros(2, 2, 1, 9, 8, 7),
    )
    label[:, :, :, :5, 2:7, :4] = 1
    with torch.no_grad():
        support = F.interpolate(network.encoder(support_image.flatten(0, 1)), (9, 8, 7), mode="trilinear")
        query = network.encoder(image)
        logits = network(image, support_image, label)
    support = support.unflatten(0, (2, 2))
    for b in range(2):
        own = [sum(support[b, k][:, label[b, k, 0] == c].mean(1) for k in range(2)) / 2 for c in range(2)]
        scores = 20 * torch.stack([F.cosine_similarity(query[b], p.view(-1, 1, 1, 1), dim=0) for p in own])
        expected = F.interpolate(scores[None], (9, 8, 7), mode="trilinear")[0]
        torch.testing.assert_close(logits[b], expected, atol=1e-4, rtol=1e-4)


def test_pooling_at_the_size_of_features_differs():
    torch.manual_seed(0)
    encoder = TwoLayers()
    episode = random_episodes()
    logits, other = (n.eval()(*episode) for n in (PANet(2, encoder), ALPNet(2, encoder, local_prototypes=False)))
    assert 1e-3 < (logits - other).abs().max() < 5


def test_bfloat16_autocast_gives_full_precision_scores():
    network = PANet(2, TwoLayers()).train()
    episode = random_episodes()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(*episode)
    assert (out.logits.dtype, out.support_logits.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(out.logits, network(*episode).logits, atol=1.0, rtol=0)


def test_both_halves_export():
    network = PANet(2, UNetEncoder(2, 1, channels=(4, 8), out_channels=8)).eval()
    image, support_image, label = random_episodes(batch=3, channels=1)

    class Half(nn.Module):
        def __init__(self, method):
            super().__init__()
            self.network = network
            self.method = method

        def forward(self, *args):
            return getattr(self.network, self.method)(*args)

    context = network.encode_support(support_image[:1], label[:1])
    with torch.no_grad():
        encode = torch.export.export(Half("encode_support"), (support_image[:1], label[:1]))
        segment = torch.export.export(Half("segment"), (image, context))
    torch.testing.assert_close(encode.module()(support_image[:1], label[:1]), context)
    torch.testing.assert_close(segment.module()(image, context), network.segment(image, context), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 4}, "spatial_dims must be 2 or 3 and num_classes 1 or more, got 4 and 1"),
        ({"num_classes": 0}, "num_classes 1 or more, got 2 and 0"),
    ],
)
def test_impossible_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        PANet(**{"spatial_dims": 2, "encoder": TwoLayers(), **options})
