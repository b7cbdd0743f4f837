# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from prototype_episodes import TwoLayers, golden_cases, random_episodes
from torch import nn

from monai_fewshot.losses import AlignmentLoss, EpisodeLoss
from monai_fewshot.networks.blocks import TrainingTarget, class_masks, linear_resize, prototype_similarity
from monai_fewshot.networks.encoders import UNetEncoder
from monai_fewshot.networks.nets import ALPNet


def plain_scores(query, support, masks, window, mode):
    """Scores (h, w) of one class by loops over cells and pixels: query (C, h, w), support (K, C, h, w), masks."""

    def average(shot):
        return (support[shot] * masks[shot]).sum((1, 2)) / (masks[shot].sum() + 1e-5)

    shots, _, height, width = support.shape
    if mode == "class":
        prototypes = [sum(average(k) for k in range(shots)) / shots]
    else:
        prototypes = [average(k) for k in range(shots)] if mode == "local+class" else []
        for k in range(shots):
            for i in range(height // window):
                for j in range(width // window):
                    cell = (slice(i * window, (i + 1) * window), slice(j * window, (j + 1) * window))
                    if masks[(k, *cell)].mean() > 0.95:
                        prototypes.append(support[(k, slice(None), *cell)].mean((1, 2)))
    own = np.stack([p / max(np.linalg.norm(p), 1e-4) for p in prototypes])
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            similarity = 20 * own @ query[:, i, j] / max(np.linalg.norm(query[:, i, j]), 1e-4)
            weight = np.exp(similarity - similarity.max())
            out[i, j] = (similarity * weight).sum() / weight.sum()
    return out


def plain_logits(network, image, support_image, support_label):
    """Logits of one episode, one shot and class after another."""
    size = image.shape[-2:]
    with torch.no_grad():
        query = network.encoder(image[None])[0].double().numpy()
        support = network.encoder(support_image).double()
    scores = []
    for c in range(network.num_classes + 1):
        mask = F.interpolate((support_label == c).float(), support.shape[-2:], mode="bilinear")
        full = F.avg_pool2d(mask, 4).max() >= 0.95
        mask = mask[:, 0].double().numpy()
        window = network.train_window if network.training else network.eval_window
        mode = "local" if c == 0 else ("local+class" if full else "class")
        scores.append(plain_scores(query, support.numpy(), mask, window, mode))
    scores = torch.tensor(np.stack(scores))[None]
    return F.interpolate(scores, size, mode="bilinear")[0]


def disk(size, center, radius):
    y, x = np.mgrid[:size, :size]
    return torch.tensor((y - center[0]) ** 2 + (x - center[1]) ** 2 < radius**2)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("num_classes", "shots"), [(1, 1), (1, 3), (2, 2)])
def test_agrees_with_plain_loops(training, num_classes, shots):
    torch.manual_seed(0)
    network = ALPNet(2, TwoLayers(), num_classes, align=False).train(training)
    image, support_image = torch.randn(2, 3, 96, 96), torch.randn(2, shots, 3, 96, 96)
    label = torch.zeros(2, shots, 1, 96, 96)
    for k in range(shots):
        label[0, k, 0][disk(96, (40, 30 + 5 * k), 24)] = 1
        label[1, k, 0][disk(96, (50, 30), 5)] = 1
        if num_classes == 2:
            label[:, k, 0, disk(96, (60, 75), 18)] = 2
    output = network(image, support_image, label)
    logits = output.logits if training else output
    for b in range(2):
        expected = plain_logits(network, image[b], support_image[b], label[b])
        torch.testing.assert_close(logits[b].double(), expected, rtol=1e-5, atol=1e-4)


def test_agrees_with_the_original_network(golden_dir):
    for case in golden_cases(golden_dir / "alpnet.npz"):
        network = ALPNet(2, TwoLayers()).train("alignment_loss" in case)
        network.load_state_dict({k: torch.tensor(v) for k, v in case.items() if k.startswith("encoder.")})
        label = torch.tensor(case["support_mask"])[None, :, None]
        out = network(torch.tensor(case["query_image"]), torch.tensor(case["support_image"])[None], label)
        logits = out.logits if network.training else out
        np.testing.assert_allclose(logits.detach(), case["logits"], atol=2e-4, rtol=1e-5)
        if network.training:
            loss = AlignmentLoss()(out.support_logits, label)
            np.testing.assert_allclose(loss.item(), case["alignment_loss"], rtol=1e-5)
            ((logits**2).mean() + loss).backward()
            gradient = case["grad.encoder.a.weight"]
            np.testing.assert_allclose(network.encoder.a.weight.grad, gradient, atol=1e-5 * abs(gradient).max())


@pytest.mark.parametrize("training", [False, True])
def test_agrees_with_the_original_panet_on_one_class(golden_dir, training):
    """Its prototypes are pooled at image size; with features brought there first, one class and shot are the same."""
    case = golden_cases(golden_dir / "panet.npz")[0]
    assert case["support_image"].shape[:2] == (1, 1)
    encoder = TwoLayers()
    encoder.load_state_dict({k[8:]: torch.tensor(v) for k, v in case.items() if k.startswith("encoder.")})
    with torch.no_grad():
        features = encoder(torch.tensor(case["support_image"][0]))
        features = F.interpolate(features, case["support_mask"].shape[-2:], mode="bilinear")
        query = encoder(torch.tensor(case["query_image"]))
    network = ALPNet(2, nn.Identity(), local_prototypes=False).train(training)
    mask = torch.tensor(case["support_mask"])
    prototypes = network.pool_prototypes(features[None], torch.cat([1 - mask, mask])[None, None].float())
    logits = network.classify(query, prototypes, case["logits"].shape[2:])
    np.testing.assert_allclose(logits, case["logits"], atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize(("num_classes", "shots"), [(1, 1), (2, 3)])
def test_without_local_prototypes_it_is_panet(num_classes, shots):
    torch.manual_seed(0)
    network = ALPNet(2, TwoLayers(), num_classes, local_prototypes=False).eval()
    image, support_image, label = random_episodes(num_classes=num_classes, shots=shots)
    logits = network(image, support_image, label)
    for b in range(len(image)):
        with torch.no_grad():
            query = network.encoder(image[b : b + 1])[0].double().numpy()
            support = network.encoder(support_image[b]).double().numpy()
        scores = []
        for c in range(num_classes + 1):
            mask = F.interpolate((label[b] == c).float(), support.shape[-2:], mode="bilinear")[:, 0].double().numpy()
            scores.append(plain_scores(query, support, mask, None, "class"))
        expected = F.interpolate(torch.tensor(np.stack(scores))[None], image.shape[2:], mode="bilinear")[0]
        torch.testing.assert_close(logits[b].double(), expected, rtol=1e-5, atol=1e-4)


def covering(label, kind):
    """Support labels that leave little to pool from."""
    label = torch.zeros_like(label)
    if kind == "full":
        label[:] = 1
    elif kind == "stripes":
        label[..., 1::4, :] = 1
    elif kind == "pixel":
        label[..., 30, 21] = 1
    elif kind == "first shot alone":
        label[:, :1, :, 8:40, 8:40] = 1
    return label


@pytest.mark.parametrize("kind", ["full", "stripes", "pixel", "empty", "first shot alone"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shots", [1, 2])
@pytest.mark.parametrize("local_prototypes", [False, True])
def test_episodes_without_usable_prototypes_fall_back(kind, training, shots, local_prototypes):
    torch.manual_seed(0)
    network = ALPNet(2, TwoLayers(), local_prototypes=local_prototypes).train(training)
    image, support_image, label = random_episodes(shots=shots)
    label = covering(label, kind)
    out = network(image, support_image, label)
    for logits in out[:2] if training else [out]:
        assert logits.isfinite().all()
        assert logits.abs().max() <= 20 + 1e-3
    if training:
        loss = EpisodeLoss()(out, TrainingTarget((image[:, :1] > 0).float(), label))
        assert loss.isfinite()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in network.parameters())
        assert any(p.grad.any() for p in network.parameters())


def test_background_that_fills_no_cell_has_one_class_prototype():
    torch.manual_seed(0)
    network = ALPNet(2, TwoLayers()).train()
    _, support_image, label = random_episodes(batch=1, shots=2)
    label = covering(label, "stripes")
    features = network.encoder(support_image[0])[None]
    masks = linear_resize(class_masks(label[0], 1), features.shape[3:])[None]
    prototypes = network.pool_prototypes(features, masks)
    assert not prototypes.owned[:, 0].any()
    assert prototypes.used[0, 0].tolist() == [0, 0, 1]
    average = [
        (features[0, k] * masks[0, k, 0]).sum((1, 2)) / (masks[0, k, 0].sum() + 1e-5)
        for k in range(support_image.shape[1])
    ]
    torch.testing.assert_close(prototypes.pooled[0, 0, 2], sum(average) / 2)


@pytest.mark.parametrize("training", [False, True])
def test_a_batch_equals_its_episodes_one_by_one(training):
    torch.manual_seed(0)
    network = ALPNet(2, TwoLayers(), num_classes=2).train(training)
    image, support_image, label = random_episodes(batch=4, shots=2, num_classes=2)
    label[1, :, :, :17] = 0
    label[2] = covering(label[2], "full")
    together = network(image, support_image, label)
    for b in range(4):
        alone = network(image[b : b + 1], support_image[b : b + 1], label[b : b + 1])
        for one, all_of_them in zip(alone[:2], together[:2], strict=True) if training else [(alone, together)]:
            torch.testing.assert_close(one[0], all_of_them[b], atol=2e-4, rtol=1e-5)


def test_halves_compose():
    network = ALPNet(2, TwoLayers(), num_classes=2).eval()
    image, support_image, label = random_episodes(shots=2, num_classes=2)
    context = network.encode_support(support_image, label)
    features = network.encode_query(image)
    torch.testing.assert_close(network.classify(features, context, (64, 48)), network(image, support_image, label))
    assert network.classify(features, context, (10, 7)).shape == (2, 3, 10, 7)


@pytest.mark.parametrize("align", [False, True])
def test_training_returns_what_the_loss_needs(align):
    network = ALPNet(2, TwoLayers(), num_classes=2, align=align).train()
    image, support_image, label = random_episodes(shots=3, num_classes=2)
    out = network(image, support_image, label)
    assert out.logits.shape == (2, 3, 64, 48)
    if align:
        assert out.support_logits.shape == (2, 3, 3, 64, 48)
    assert out[1 + align :] == (None,) * (4 - align)
    assert network.eval()(image, support_image, label).shape == (2, 3, 64, 48)


def test_alignment_is_the_query_as_support_of_the_support():
    torch.manual_seed(0)
    network = ALPNet(2, TwoLayers(), num_classes=2).train()
    image, support_image, label = random_episodes(batch=2, shots=2, num_classes=2)
    with torch.no_grad():
        support_logits = network(image, support_image, label).support_logits
        query, support = network.encoder(image), network.encoder(support_image.flatten(0, 1)).unflatten(0, (2, 2))
        scores = prototype_similarity(query, network.encode_support(support_image, label))
    predicted = F.one_hot(scores.argmax(1), 3).movedim(3, 1).double().numpy()
    for b, k, c in np.ndindex(2, 2, 3):
        mask = predicted[b : b + 1, c]
        full = F.avg_pool2d(torch.tensor(mask)[None], 4).max() >= 0.95
        has_cells = full if c else (F.avg_pool2d(torch.tensor(mask)[None], 4) > 0.95).any()
        mode = "class" if not has_cells else ("local+class" if c else "local")
        expected = plain_scores(support[b, k].double().numpy(), query[b : b + 1].double().numpy(), mask, 4, mode)
        expected = F.interpolate(torch.tensor(expected)[None, None], (64, 48), mode="bilinear")[0, 0]
        torch.testing.assert_close(support_logits[b, k, c].double(), expected, rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("training", [False, True])
def test_three_dimensions(training):
    torch.manual_seed(0)
    size = (16, 20, 12)
    network = ALPNet(3, nn.Conv3d(1, 6, 3, stride=2, padding=1), align=False).train(training)
    image, support_image, label = torch.randn(2, 1, *size), torch.randn(2, 2, 1, *size), torch.zeros(2, 2, 1, *size)
    label[:, :, :, :8, :8, :8] = 1
    output = network(image, support_image, label)
    logits = output.logits if training else output
    assert logits.shape == (2, 2, *size)
    window = 4 if training else 2
    for b in range(2):
        with torch.no_grad():
            query, support = network.encoder(image[b : b + 1])[0], network.encoder(support_image[b])
        scores = []
        for c in range(2):
            mask = F.interpolate((label[b] == c).float(), support.shape[2:], mode="trilinear")
            filled = (F.avg_pool3d(mask, window) > 0.95)[:, 0].flatten()
            assert filled.any()
            own = F.avg_pool3d(support, window).movedim(1, -1).flatten(0, 3)[filled]
            if c == 1:
                means = [(support[k] * mask[k]).sum((1, 2, 3)) / (mask[k].sum() + 1e-5) for k in range(2)]
                own = torch.cat([own, torch.stack(means)])
            s = 20 * F.normalize(own, dim=1, eps=1e-4) @ F.normalize(query.flatten(1), dim=0, eps=1e-4)
            scores.append((s * s.softmax(0)).sum(0).view(query.shape[1:]))
        expected = F.interpolate(torch.stack(scores)[None], size, mode="trilinear")[0]
        torch.testing.assert_close(logits[b], expected, rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("size", [(257, 257), (31, 45)])
def test_sizes_that_no_stride_divides(size):
    network = ALPNet(2, UNetEncoder(2, 1, channels=(4, 8), out_channels=8)).train()
    image, support_image, label = random_episodes(batch=1, size=size, channels=1)
    output = network(image, support_image, label)
    assert output.logits.shape == (1, 2, *size)
    assert output.support_logits.shape == (1, 1, 2, *size)
    context = network.eval().encode_support(support_image, label)
    assert network.segment(image, context).shape == (1, 2, *size)


def test_features_smaller_than_a_cell():
    network = ALPNet(2, nn.Conv2d(1, 4, 3, stride=8, padding=1), train_window=8).train()
    image, support_image, label = random_episodes(size=(24, 20), channels=1)
    output = network(image, support_image, label)
    assert output.logits.isfinite().all()
    assert output.support_logits.isfinite().all()


def test_labels_of_no_class_are_nobodys():
    """Values beyond the classes, such as 255, mark pixels that support neither class nor background."""
    torch.manual_seed(0)
    network = ALPNet(2, nn.Identity(), eval_window=2).eval()
    image, support_image, label = random_episodes(channels=4)
    label[..., :16, 32:] = 255
    changed = support_image.clone()
    changed[..., :16, 32:] += 5
    torch.testing.assert_close(network(image, changed, label), network(image, support_image, label))


def test_bfloat16_autocast_gives_full_precision_scores():
    network = ALPNet(2, TwoLayers()).eval()
    episode = random_episodes()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(*episode)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, network(*episode), atol=1.0, rtol=0)


@pytest.mark.parametrize("batch", [1, 3])
def test_both_halves_export(batch):
    torch.manual_seed(0)
    network = ALPNet(2, UNetEncoder(2, 1, channels=(4, 8), out_channels=8)).eval()
    image, support_image, label = random_episodes(batch=3, size=(64, 64), channels=1)

    class Half(nn.Module):
        def __init__(self, method):
            super().__init__()
            self.network = network
            self.method = method

        def forward(self, *args):
            return getattr(self.network, self.method)(*args)

    context = network.encode_support(support_image[:batch], label[:batch])
    with torch.no_grad():
        encode = torch.export.export(Half("encode_support"), (support_image[:batch], label[:batch]))
        segment = torch.export.export(Half("segment"), (image, context))
    exported = encode.module()(support_image[:batch], label[:batch])
    for own, other in zip(context, exported, strict=True):
        torch.testing.assert_close(own, other)
    torch.testing.assert_close(segment.module()(image, exported), network.segment(image, context), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 4}, "spatial_dims must be 2 or 3 and num_classes 1 or more, got 4 and 1"),
        ({"num_classes": 0}, "num_classes 1 or more, got 2 and 0"),
        ({"eval_window": 0}, "train_window and eval_window must be 1 or more, got 4 and 0"),
        ({"threshold": 1.0}, "threshold must lie between 0 and 1, got 1.0"),
        ({"threshold": 0}, "threshold must lie between 0 and 1"),
    ],
)
def test_impossible_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        ALPNet(**{"spatial_dims": 2, "encoder": TwoLayers(), **options})
