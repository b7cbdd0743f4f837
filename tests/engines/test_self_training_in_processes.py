# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Self-training in two processes (gloo) against one."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from process_groups import in_two_processes
from self_training import self_trainer, slices, small_network

from monai_fewshot.data import AnnotatedSlices, UnlabeledSlices
from monai_fewshot.handlers import ClassProgress, MeanLossOverProcesses
from monai_fewshot.losses import PresentClassesLoss
from monai_fewshot.networks import average_gradients
from monai_fewshot.transforms import BoxPaste, EpisodeAugmentation, IntensityVariation
from monai_fewshot.workflows import episode_loader

pytestmark = pytest.mark.slow
EPOCH_LENGTH = 15
WEIGHTS = torch.tensor([0.2, 3.0, 1.5, 0.7])


def train():
    """Train for two epochs, of which the second learns from unlabeled slices."""
    network = small_network()
    strong = EpisodeAugmentation(None, None, IntensityVariation(noise=0.3))
    annotated = AnnotatedSlices(slices(), 4 * EPOCH_LENGTH, 2, augmentation=strong, balanced=True)
    unlabeled = UnlabeledSlices(slices(9, seed=1), 6 * EPOCH_LENGTH, None, strong, BoxPaste())
    parts = [episode_loader(annotated, 4), episode_loader(unlabeled, 6)]
    progress = ClassProgress(["bright", "dark"], 2 * EPOCH_LENGTH, latest_start=0.5, confidence=0.5)
    shared = average_gradients(network, torch.device("cpu"))
    trainer = self_trainer(shared, *parts, progress, max_epochs=2, class_weights=WEIGHTS[:3])
    losses = []
    MeanLossOverProcesses().attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.append(trainer.state.output["loss"].item()))
    trainer.run()
    return {
        "losses": losses,
        "weights": [p.detach() for p in network.parameters()],
        "teacher": list(trainer.teacher.network.parameters()),
        "progress": progress.state_dict(),
        "believed": trainer.state.output["believed"].item(),
    }


def loss_of_share(rank):
    """The loss of unequal shares, and its gradient."""
    logits, target = (tensor[rank::2].clone() for tensor in unequal_batch())
    logits.requires_grad_()
    loss = PresentClassesLoss()(logits, target, WEIGHTS)
    loss.backward()
    return loss.item(), logits.grad


def unequal_batch():
    """A batch of which every second sample has no class 2, and little that counts."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 4, 9, 7, generator=generator)
    target = torch.randint(0, 4, (4, 1, 9, 7), generator=generator).float()
    target[1::2][target[1::2] == 2] = 0
    target[1::2, :, :4] = 255
    return logits, target


def _in_a_group(rank, folder):
    return {"training": train(), "loss": loss_of_share(rank)}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return in_two_processes(_in_a_group, tmp_path_factory.mktemp("group"))


def test_two_processes_learn_what_one_does(both):
    one, start = train(), list(small_network().parameters())
    for two in (found["training"] for found in both):
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-3)
        for part in ("weights", "teacher"):
            torch.testing.assert_close(two[part], one[part], rtol=1e-2, atol=1e-3)
        assert two["progress"]["start"] == one["progress"]["start"] == 20
        torch.testing.assert_close(two["progress"]["dice"], one["progress"]["dice"], rtol=1e-3, atol=1e-4)
    assert 0.05 < one["believed"] < 0.999
    assert all((p - q).abs().max() > 0.01 for p, q in zip(one["weights"], start, strict=True))
    first, second = (found["training"] for found in both)
    assert all(torch.equal(p, q) for p, q in zip(first["weights"], second["weights"], strict=True))


def test_the_loss_is_that_of_the_whole_batch(both):
    logits, target = unequal_batch()
    logits.requires_grad_()
    whole = PresentClassesLoss()(logits, target, WEIGHTS)
    whole.backward()
    (first, grad), (second, other_grad) = (found["loss"] for found in both)
    assert (first + second) / 2 == pytest.approx(whole.item(), rel=1e-6)
    # DistributedDataParallel averages what the samples of each process contribute.
    torch.testing.assert_close(torch.stack([grad, other_grad], 1).flatten(0, 1) / 2, logits.grad)
