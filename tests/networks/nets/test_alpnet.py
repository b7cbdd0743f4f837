# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from monai_fewshot.losses import AlignmentLoss
from monai_fewshot.networks.nets import ALPNet


class TwoLayers(nn.Module):
    def __init__(self, in_channels: int = 3):
        super().__init__()
        self.a = nn.Conv2d(in_channels, 8, 3, 2, 1)
        self.b = nn.Conv2d(8, 16, 3, 2, 1)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


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
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            f = query[:, i, j]
            s = np.array([20 * f @ p / max(np.linalg.norm(f), 1e-4) / max(np.linalg.norm(p), 1e-4) for p in prototypes])
            weight = np.exp(s - s.max())
            out[i, j] = (s * weight).sum() / weight.sum()
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
    logits = network(image, support_image, label)
    for b in range(2):
        expected = plain_logits(network, image[b], support_image[b], label[b])
        torch.testing.assert_close(logits[b].double(), expected, rtol=1e-5, atol=1e-4)


def test_agrees_with_the_original_network(golden_dir):
    data = np.load(golden_dir / "alpnet.npz")
    cases = sorted({key.split("/")[0] for key in data.files})
    assert cases
    for n in cases:
        case = {key.split("/", 1)[1]: data[key] for key in data.files if key.startswith(f"{n}/")}
        network = ALPNet(2, TwoLayers()).train("alignment_loss" in case)
        network.load_state_dict({k: torch.tensor(v) for k, v in case.items() if k.startswith("encoder.")})
        label = torch.tensor(case["support_mask"])[None, :, None]
        out = network(torch.tensor(case["query_image"]), torch.tensor(case["support_image"])[None], label)
        logits = out[0] if network.training else out
        np.testing.assert_allclose(logits.detach(), case["logits"], atol=2e-4, rtol=1e-5)
        if network.training:
            loss = AlignmentLoss()(out[1], label)
            np.testing.assert_allclose(loss.item(), case["alignment_loss"], rtol=1e-5)
            ((logits**2).mean() + loss).backward()
            gradient = case["grad.encoder.a.weight"]
            np.testing.assert_allclose(network.encoder.a.weight.grad, gradient, atol=1e-5 * abs(gradient).max())
