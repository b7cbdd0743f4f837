# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss

from monai_fewshot.losses import PresentClassesLoss


def batch(size=4, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(size, classes + 1, 9, 7, generator=generator)
    return logits, torch.randint(0, classes + 1, (size, 1, 9, 7), generator=generator).float()


def by_hand(logits, target, ignored=255, weights=None):
    """The loss, pixel by pixel and class by class, in numpy."""
    logits, target = logits.double().numpy(), target.numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    entropy, weight, number = 0.0, 0.0, 0
    both, found, sizes = np.zeros((3, logits.shape[1]))
    for b, row, column in np.ndindex(target.shape[0], *target.shape[2:]):
        true = int(target[b, 0, row, column])
        if true == ignored:
            continue
        p = probabilities[b, :, row, column]
        entropy -= np.log(p[true]) * (1 if weights is None else weights[true])
        weight += 1 if weights is None else weights[true]
        number += 1
        found += p
        sizes[true] += 1
        both[true] += p[true]
    losses = [1 - (2 * both[c] + 1) / (found[c] + sizes[c] + 1) for c in range(1, len(sizes)) if sizes[c]]
    mean = entropy / weight if number else 0.0
    return mean * number / target.size + (np.mean(losses) if losses else 0.0)


def test_it_is_monais_where_all_classes_show_and_all_pixels_count():
    logits, target = batch()
    theirs = DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1.0, smooth_dr=1.0
    )
    assert PresentClassesLoss()(logits, target).item() == pytest.approx(theirs(logits, target).item(), rel=1e-6)


@pytest.mark.parametrize("absent", [(), (2,), (1, 3), (1, 2, 3)])
def test_by_hand_with_absent_classes_and_pixels_that_do_not_count(absent):
    logits, target = batch()
    for value in absent:
        target[target == value] = 0
    target[:, :, 2:5, 1:4] = 255
    target[1] = 255
    assert PresentClassesLoss()(logits, target).item() == pytest.approx(by_hand(logits, target), rel=1e-6)


@pytest.mark.parametrize("absent", [(), (2,), (1, 2, 3)])
def test_by_hand_with_weights_of_the_classes(absent):
    logits, target = batch()
    for value in absent:
        target[target == value] = 0
    target[:, :, 2:5, 1:4] = 255
    target[1] = 255
    weights = [0.2, 3.0, 1.5, 0.7]
    found = PresentClassesLoss()(logits, target, torch.tensor(weights))
    assert found.item() == pytest.approx(by_hand(logits, target, weights=weights), rel=1e-6)


def test_pixels_that_do_not_count_get_no_gradient_and_the_others_do():
    logits, target = batch()
    target[:, :, 2:5, 1:4] = 255
    logits.requires_grad_()
    PresentClassesLoss()(logits, target).backward()
    moved = logits.grad.abs().sum(1, keepdim=True) > 0
    assert torch.equal(moved, target != 255)


def test_what_a_class_that_does_not_show_gets_is_cross_entropy_alone():
    logits, target = batch()
    target[target == 2] = 0
    logits.requires_grad_()
    grad = torch.autograd.grad(PresentClassesLoss()(logits, target), logits)[0]
    shown = [0, 1, 3]
    without = by_hand(logits[:, shown].detach(), torch.where(target == 3, 2, target))
    assert without < PresentClassesLoss()(logits, target).item(), "probability that goes to it is lost to the others"
    assert (grad[:, 2] > 0).all()


@pytest.mark.parametrize("weights", [None, torch.tensor([0.2, 3.0, 1.5, 0.7])])
def test_where_no_pixel_counts_the_loss_is_0_with_a_graph(weights):
    logits, target = batch()
    logits.requires_grad_()
    loss = PresentClassesLoss()(logits, torch.full_like(target, 255), weights)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_fewer_pixels_that_count_weigh_less_in_the_cross_entropy():
    logits, target = batch(classes=1)
    target[:] = 0
    known = target.clone()
    known[:, :, :3] = 255
    entropies = F.cross_entropy(logits, target[:, 0].long(), reduction="none")
    assert PresentClassesLoss()(logits, known).item() == pytest.approx(entropies[:, 3:].sum().item() / target.numel())


def test_half_precision_and_volumes():
    logits, target = batch()
    exact = PresentClassesLoss()(logits, target)
    half = PresentClassesLoss()(logits.bfloat16(), target)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=1e-2, atol=0)
    volumes = PresentClassesLoss()(logits.movedim(0, 2)[None], target.movedim(0, 2)[None])
    torch.testing.assert_close(volumes, exact)


def test_another_number_stands_for_what_does_not_count():
    logits, target = batch()
    target[:, :, 4] = 255
    torch.testing.assert_close(
        PresentClassesLoss(-1)(logits, torch.where(target == 255, -1, target)), PresentClassesLoss()(logits, target)
    )


@pytest.mark.parametrize("ignored_share", [0.0, 0.4])
def test_weights_are_those_of_cross_entropy(ignored_share):
    logits, target = batch()
    target[:, :, : round(9 * ignored_share)] = 255
    weights = torch.tensor([0.3, 1.0, 2.0, 7.0])
    loss, counted = PresentClassesLoss(), (target != 255).float().mean()
    plain, weighted = (
        F.cross_entropy(logits, target[:, 0].long(), weight, ignore_index=255) for weight in (None, weights)
    )
    found = loss(logits, target, weights) - loss(logits, target)
    torch.testing.assert_close(found, (weighted - plain) * counted, rtol=1e-4, atol=1e-5)
    assert abs(found) > 0.01
