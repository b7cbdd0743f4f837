# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss

from monai_fewshot.losses import ClassLoss, ExemplarLoss, PrototypeContrastLoss
from monai_fewshot.networks.blocks import TrainingOutput


@pytest.fixture
def batch():
    torch.manual_seed(0)
    logits = torch.randn(6, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    label = torch.randint(0, 4, (2, 3, 1, 8, 8)).double()
    embedding = torch.randn(6, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    return logits, embedding, label


def loop(logits, label):
    """Half cross-entropy, half Dice, pixel by pixel."""
    probabilities = torch.softmax(logits, 1).detach().numpy()
    entropy, counted, dice = 0.0, 0, []
    for image in range(len(logits)):
        both, sizes = np.zeros(4), np.zeros(4)
        for row in range(8):
            for column in range(8):
                value = int(label[image, 0, row, column])
                if value == 255:
                    continue
                counted += 1
                entropy -= np.log(probabilities[image, value, row, column])
                both[value] += probabilities[image, value, row, column]
                sizes += probabilities[image, :, row, column]
                sizes[value] += 1
        dice += [1 - (2 * both[c] + 1e-5) / (sizes[c] + 1e-5) for c in (1, 2, 3)]
    return 0.5 * entropy / counted + 0.5 * np.mean(dice)


@pytest.mark.parametrize("ignored", [False, True])
def test_it_is_the_loop_over_pixels_that_count(batch, ignored):
    logits, _, label = batch
    label = label[:, 0]
    if ignored:
        label[0, 0, :4] = 255
    assert ClassLoss()(logits[:2], label).item() == pytest.approx(loop(logits[:2], label), rel=1e-5)


def test_without_ignored_pixels_it_is_that_of_monai(batch):
    logits, _, label = batch
    monai = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, lambda_dice=0.5, lambda_ce=0.5)
    parts = [monai.lambda_dice * monai.dice(logits[:2], label[:, 1])]
    parts.append(0.5 * torch.nn.functional.cross_entropy(logits[:2], label[:, 1, 0].long()))
    torch.testing.assert_close(ClassLoss()(logits[:2], label[:, 1]).double(), sum(parts), rtol=1e-5, atol=1e-6)


def test_where_nothing_counts_only_the_smoothing_of_dice_is_left(batch):
    logits, _, label = batch
    loss = ClassLoss()(logits[:2], torch.full_like(label[:, 0], 255))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert not logits.grad.any()


def test_ignored_pixels_have_no_gradient(batch):
    logits, _, label = batch
    label[:, 0, :, :3] = 255
    ClassLoss()(logits[:2], label[:, 0]).backward()
    assert not logits.grad[:2, :, :3].any()
    assert logits.grad[:2, :, 3:].any()


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_are_weighted_and_the_contrast_is_of_all(batch, parts):
    logits, embedding, label = batch
    logits, embedding, label = logits[: 2 * parts], embedding[: 2 * parts], label[:, :parts]
    contrast = PrototypeContrastLoss(include_background=True, generator=torch.Generator().manual_seed(3))
    found = ExemplarLoss((1.0, 0.5, 0.25), 0.1, contrast=contrast)(TrainingOutput(logits, embedding=embedding), label)
    order = [[sample * parts + part for sample in range(2)] for part in range(parts)]
    weights = (1.0, 0.5, 0.25)
    expected = sum(weights[p] * ClassLoss()(logits[order[p]], label[:, p]) for p in range(parts))
    again = PrototypeContrastLoss(include_background=True, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(found, expected + 0.1 * again(embedding, logits), check_dtype=False)


def test_without_contrast_the_embedding_has_no_gradient(batch):
    logits, embedding, label = batch
    ExemplarLoss(contrast_weight=0.0)(TrainingOutput(logits, embedding=embedding), label).backward()
    assert embedding.grad is None
    assert logits.grad.any()


def test_what_does_not_fit_is_refused(batch):
    logits, embedding, label = batch
    with pytest.raises(ValueError, match=r"Logits \(5, 4, 8, 8\) do not fit labels \(2, 3, 1, 8, 8\)"):
        ExemplarLoss()(TrainingOutput(logits[:5], embedding=embedding), label)
    with pytest.raises(ValueError, match=r"\(B, P, 1, \*S\) with P up to 2"):
        ExemplarLoss((1.0, 1.0))(TrainingOutput(logits, embedding=embedding), label)
