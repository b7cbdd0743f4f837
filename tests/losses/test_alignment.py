# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from monai.losses import DiceLoss

from monai_fewshot.losses import AlignmentLoss, EpisodeLoss
from monai_fewshot.networks.blocks import TrainingOutput, TrainingTarget


def _random(batch=2, shots=3, classes=1, size=(6, 5), ignored=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(batch, shots, classes + 1, *size, generator=generator)
    label = torch.randint(0, classes + 1, (batch, shots, 1, *size), generator=generator).float()
    if ignored:
        label[torch.rand(label.shape, generator=generator) < 0.3] = 255
    return logits, label


def _by_loops(logits, label):
    """(B, K, N): each class against the background, by PyTorch's cross-entropy over the pixels of either."""
    batch, shots, channels = logits.shape[:3]
    out = torch.zeros(batch, shots, channels - 1)
    for b, k, c in np.ndindex(batch, shots, channels - 1):
        target = torch.full(label.shape[3:], 255, dtype=torch.long)
        target[label[b, k, 0] == 0] = 0
        target[label[b, k, 0] == c + 1] = 1
        pair = torch.stack([logits[b, k, 0], logits[b, k, c + 1]])[None]
        out[b, k, c] = F.cross_entropy(pair, target[None], ignore_index=255)
    return out


@pytest.mark.parametrize(("classes", "ignored"), [(1, False), (1, True), (3, False), (3, True)])
@pytest.mark.parametrize("size", [(6, 5), (4, 3, 5)])
def test_alignment_by_loops(classes, ignored, size):
    logits, label = _random(classes=classes, size=size, ignored=ignored)
    expected = _by_loops(logits, label)
    torch.testing.assert_close(AlignmentLoss(reduction="none")(logits, label), expected)
    torch.testing.assert_close(AlignmentLoss()(logits, label), expected.mean())
    torch.testing.assert_close(AlignmentLoss(reduction="sum")(logits, label), expected.sum())


def test_alignment_of_a_label_that_counts_nowhere_is_zero():
    logits, label = _random(classes=2)
    label[0, 0] = 255
    label[1, 2] = 2
    logits.requires_grad_()
    loss = AlignmentLoss(reduction="none")(logits, label)
    assert loss[0, 0].tolist() == [0, 0]
    assert loss[1, 2, 0] == 0
    loss.sum().backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[0, 0].any()


def test_classes_are_compared_in_shots_that_show_them():
    logits, label = _random(batch=2, shots=3, classes=2)
    label[0, 0][label[0, 0] == 2] = 0
    label[0, 1][label[0, 1] == 1] = 255
    label[1, 2][label[1, 2] > 0] = 0
    by_pair = _by_loops(logits, label)
    by_pair[0, 0, 1] = by_pair[0, 1, 0] = 0
    torch.testing.assert_close(AlignmentLoss(reduction="none")(logits, label), by_pair)
    expected = (by_pair[0].sum() / 4 + by_pair[1].sum() / 6) / 2
    torch.testing.assert_close(AlignmentLoss()(logits, label), expected)


def test_a_class_without_a_finite_logit_costs_nothing():
    logits, label = _random(classes=2)
    whole = AlignmentLoss(reduction="none")(logits, label)
    logits[1, :, 2] = -torch.inf
    logits.requires_grad_()
    loss = AlignmentLoss(reduction="none")(logits, label)
    whole[1, :, 1] = 0
    torch.testing.assert_close(loss, whole)
    AlignmentLoss()(logits, label).backward()
    assert logits.grad.isfinite().all()
    torch.testing.assert_close(AlignmentLoss()(logits, label), whole.mean())


def test_perfect_and_inverted_predictions():
    label = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 1, 1, 2, 2)
    logits = torch.cat([1 - label, label], dim=2) * 40 - 20
    assert AlignmentLoss()(logits, label) < 1e-6
    assert AlignmentLoss()(-logits, label) == pytest.approx(40)


def test_half_precision_logits():
    logits, label = _random()
    loss = AlignmentLoss()(logits.bfloat16(), label)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, AlignmentLoss()(logits.bfloat16().float(), label))


@pytest.mark.parametrize("shape", [(2, 3, 1, 6, 4), (2, 2, 1, 6, 5), (2, 3, 2, 6, 5), (1, 3, 1, 6, 5)])
def test_shapes_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"Logits \(2, 3, 2, 6, 5\) do not fit support labels"):
        AlignmentLoss()(_random()[0], torch.zeros(shape))


def test_unknown_reduction():
    with pytest.raises(ValueError, match="median"):
        AlignmentLoss(reduction="median")


def _episode(classes=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes + 1, 6, 5, generator=generator)
    label = torch.randint(0, classes + 1, (2, 1, 6, 5), generator=generator).float()
    label[torch.rand(label.shape, generator=generator) < 0.2] = 255
    return logits, label


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("background_weight", [0.05, 1.0, 0.5])
def test_query_loss_is_the_weighted_cross_entropy(classes, background_weight):
    logits, label = _episode(classes)
    log_probability = logits.double().log_softmax(1)
    total = weights = 0.0
    for b, i, j in np.ndindex(2, 6, 5):
        value = int(label[b, 0, i, j])
        if value != 255:
            weight = background_weight if value == 0 else 1.0
            total -= weight * log_probability[b, value, i, j].item()
            weights += weight
    loss = EpisodeLoss(background_weight)(TrainingOutput(logits), TrainingTarget(label, torch.zeros(2, 1, 1, 6, 5)))
    assert loss.item() == pytest.approx(total / weights, rel=1e-5)


def _loss_of_a_part(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    logits, label = _episode(2)
    support_logits, support_label = _random(classes=2)
    own = slice(rank, rank + 1)
    logits = logits[own].requires_grad_()
    loss = EpisodeLoss()(TrainingOutput(logits, support_logits[own]), TrainingTarget(label[own], support_label[own]))
    loss.backward()
    torch.save((loss.detach(), logits.grad), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_the_mean_over_processes_is_the_loss_of_the_global_batch(tmp_path):
    torch.multiprocessing.spawn(_loss_of_a_part, (str(tmp_path),), nprocs=2)
    losses, gradients = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in range(2)), strict=True)
    (logits, label), (support_logits, support_label) = _episode(2), _random(classes=2)
    logits.requires_grad_()
    whole = EpisodeLoss()(TrainingOutput(logits, support_logits), TrainingTarget(label, support_label))
    whole.backward()
    assert losses[0] != losses[1]
    torch.testing.assert_close(torch.stack(losses).mean(), whole.detach())
    torch.testing.assert_close(torch.cat(gradients) / 2, logits.grad)


def test_a_query_that_counts_nowhere_adds_nothing():
    logits, label = _episode(1)
    loss = EpisodeLoss()(
        TrainingOutput(logits), TrainingTarget(torch.full_like(label, 255), torch.zeros(2, 1, 1, 6, 5))
    )
    assert loss == 0


def test_other_ignored_values():
    logits, label = _episode()
    other = torch.where(label == 255, 7.0, label)
    support = torch.zeros(2, 1, 1, 6, 5)
    found = EpisodeLoss(ignore_index=7)(TrainingOutput(logits), TrainingTarget(other, support))
    torch.testing.assert_close(found, EpisodeLoss()(TrainingOutput(logits), TrainingTarget(label, support)))


@pytest.mark.parametrize("weight", [1.0, 0.3, 0.0])
def test_alignment_is_added(weight):
    logits, label = _episode()
    support_logits, support_label = _random()
    target = TrainingTarget(label, support_label)
    query = EpisodeLoss()(TrainingOutput(logits), target)
    loss = EpisodeLoss(alignment_weight=weight)(TrainingOutput(logits, support_logits), target)
    torch.testing.assert_close(loss, query + weight * AlignmentLoss()(support_logits, support_label))


@pytest.mark.parametrize("weight", [1.0, 0.3, 0.0])
def test_the_auxiliary_loss_is_added(weight):
    logits, label = _episode()
    target = TrainingTarget(label, torch.zeros(2, 1, 1, 6, 5))
    query = EpisodeLoss()(TrainingOutput(logits), target)
    loss = EpisodeLoss(auxiliary_weight=weight)(TrainingOutput(logits, auxiliary_loss=torch.tensor(-0.7)), target)
    torch.testing.assert_close(loss, query - weight * 0.7)


def test_a_loss_of_monai_takes_the_place_of_the_cross_entropy():
    logits, label = _episode(2)
    label[label == 255] = 0
    support_logits, support_label = _random(classes=2)
    target = TrainingTarget(label, support_label)
    dice = DiceLoss(softmax=True, to_onehot_y=True)
    found = EpisodeLoss(segmentation=dice)(TrainingOutput(logits, support_logits), target)
    torch.testing.assert_close(found, dice(logits, label) + AlignmentLoss()(support_logits, support_label))


@pytest.mark.parametrize("episodes", [1, 2])
def test_a_support_counts_with_each_of_its_queries(episodes):
    logits, label = (torch.cat([x, x.flip(0)]) for x in _episode())
    support_logits, support_label = _random(batch=4)
    support_label = support_label[:episodes]
    shared = EpisodeLoss()(TrainingOutput(logits, support_logits), TrainingTarget(label, support_label))
    repeated = torch.stack([support_label[query * episodes // 4] for query in range(4)])
    expected = EpisodeLoss()(TrainingOutput(logits, support_logits), TrainingTarget(label, repeated))
    torch.testing.assert_close(shared, expected)
    with pytest.raises(ValueError, match=r"4 queries cannot be dealt out to 3 episodes, of shape \(3, 3, 1, 6, 5\)"):
        EpisodeLoss()(TrainingOutput(logits, support_logits), TrainingTarget(label, repeated[:3]))
