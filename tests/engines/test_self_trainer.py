# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Steps of a self-training against the same steps in plain loops."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import IterationEvents
from self_training import self_trainer, slices, small_network
from torch import nn

from monai_fewshot.data import AnnotatedSlices, UnlabeledSlices, collate_episodes
from monai_fewshot.handlers import ClassProgress, Teacher
from monai_fewshot.losses import PresentClassesLoss
from monai_fewshot.transforms import BoxPaste, EpisodeAugmentation, IntensityVariation
from monai_fewshot.workflows import episode_loader

BATCH, UNLABELED_BATCH, STEPS, LR, MOMENTUM = 2, 5, 6, 0.2, 0.1
NAMES = ["bright", "dark"]


def items(steps=STEPS):
    """Samples of all steps, annotated and not."""
    weak, strong = EpisodeAugmentation(None, None), EpisodeAugmentation(None, None, IntensityVariation(noise=0.3))
    annotated = AnnotatedSlices(slices(), steps * BATCH, 2, balanced=True)
    unlabeled = UnlabeledSlices(slices(9, seed=1), steps * UNLABELED_BATCH, weak, strong, BoxPaste())
    return list(annotated), list(unlabeled)


def loaders(annotated, unlabeled):
    return [
        DataLoader(part, batch_size=size, collate_fn=collate_episodes)
        for part, size in ((annotated, BATCH), (unlabeled, UNLABELED_BATCH))
    ]


def started(num_iterations=20, start=0, **options):
    """Progress of a training that learns from unlabeled slices already."""
    progress = ClassProgress(NAMES, num_iterations, **options)
    progress.start = start
    return progress


def entropy_of_known(logits, target, weights=None):
    """A loss that is written otherwise than the one that is trained with."""
    known = target[:, 0] != 255
    chosen = -logits.log_softmax(1).gather(1, target.long() * known[:, None])[:, 0]
    if weights is not None:
        chosen = chosen * weights[target[:, 0].long() * known]
    return (chosen * known).mean()


def labeled(teacher, weak, confidence):
    """Pseudo-labels of a batch, pixel by pixel."""
    probabilities = teacher(weak).softmax(1).detach()
    target = [p.index(max(p)) if max(p) > confidence else 255 for p in pixels(probabilities)]
    return torch.tensor(target, dtype=torch.float32).view(len(weak), 1, *weak.shape[2:])


def pixels(probabilities):
    return probabilities.movedim(1, 3).reshape(-1, 3).tolist()


def mixed(batch, images, target, given, label):
    """Images and targets with boxes, image by image."""
    out, out_target = images.clone(), target.clone()
    for number in range(len(images)):
        of_annotated = number < len(images) // 2
        source = number % len(given) if of_annotated else number - 1
        pasted = batch["pasted"][number]
        out[number][pasted] = (given if of_annotated else images)[source][pasted]
        out_target[number][pasted] = (label if of_annotated else target)[source][pasted]
    return out, out_target


def reference(network, annotated, unlabeled, confidence=0.9, ramp=0.1, max_norm=5.0, class_weights=None):
    """Weights after all steps, those of the teacher, and what each step reports."""
    num_iterations = 20
    network, teacher, reports = copy.deepcopy(network), copy.deepcopy(network), []
    for step, (own, others) in enumerate(zip(annotated, unlabeled, strict=True), 1):
        target = labeled(teacher, others["image"], confidence)
        images, target = mixed(others, others["strong_image"], target, own["image"], own["label"])
        weights = None if class_weights is None else class_weights ** (1 - step / num_iterations)
        parts = (
            entropy_of_known(network(own["image"]), own["label"], weights),
            entropy_of_known(network(images), target),
        )
        weight = min(1.0, 0.1 + step / max(1, ramp * num_iterations))
        loss = parts[0] + weight * parts[1]
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        norm = math.sqrt(sum((gradient**2).sum().item() for gradient in gradients))
        with torch.no_grad():
            for p, gradient in zip(network.parameters(), gradients, strict=True):
                p -= LR * gradient * min(1, max_norm / norm)
            for mean, p in zip(teacher.parameters(), network.parameters(), strict=True):
                mean += max(MOMENTUM, 1 / step) * (p - mean)
        known = (target != 255).float().mean().item()
        reports.append((loss.item(), parts[0].item(), parts[1].item(), known))
    return network, teacher, reports


def assert_close(one, other):
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "progress"),
    [
        ({}, {"confidence": 0.6}),
        ({"ramp": 0.9}, {"confidence": 0.8}),
        ({"max_norm": 0.05}, {"confidence": 0.4}),
        ({"class_weights": torch.tensor([0.5, 1.0, 2.0])}, {"confidence": 0.4}),
    ],
)
def test_steps_are_those_of_a_plain_computation(settings, progress):
    network = small_network()
    start, parts = copy.deepcopy(network), loaders(*items())
    expected, teacher, reports = reference(network, *parts, **settings, **progress)
    options = {"teacher": Teacher(network, MOMENTUM), "optimizer": torch.optim.SGD(network.parameters(), LR)}
    settings = {**settings, "loss_function": entropy_of_known}
    trainer = self_trainer(network, *parts, started(**progress), **options, **settings)
    found = []
    names = ("loss", "annotated_loss", "unlabeled_loss", "believed")
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: found.append([trainer.state.output[name].item() for name in names])
    )
    trainer.run()
    torch.testing.assert_close(torch.tensor(found), torch.tensor(reports), rtol=1e-4, atol=1e-6)
    assert_close(network, expected)
    assert_close(trainer.teacher.network, teacher)
    believed = [report[3] for report in reports]
    assert min(believed) > 0.02, "or nothing is learned from unlabeled slices"
    assert max(believed) < 0.98, "or no pixel is left out"
    assert any((p - q).abs().max() > 1e-3 for p, q in zip(network.parameters(), start.parameters(), strict=True))


class Recorder(PresentClassesLoss):
    """The loss, which keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, input, target, weights=None):
        if input.requires_grad:
            input.retain_grad()
        self.calls.append((input, target))
        return super().forward(input, target, weights)


class GivenLogits(nn.Module):
    """Takes its input for the logits, shifted by a parameter."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, image):
        return image + self.shift


def as_logits(*probabilities):
    """A pixel row of given probabilities, repeated so that there are enough."""
    return torch.tensor(probabilities).log().T[:, :, None].expand(-1, -1, 10)


def test_which_pixels_count():
    weak = as_logits(
        (0.95, 0.04, 0.01), (0.91, 0.02, 0.07), (0.92, 0.075, 0.005),  # background, sure
        (0.80, 0.10, 0.10),  # background, unsure
        (0.05, 0.92, 0.03), (0.05, 0.03, 0.92), (0.20, 0.70, 0.10), (0.40, 0.15, 0.45),  # classes
    )  # fmt: skip
    given = {"image": weak, "label": torch.zeros(1, *weak.shape[1:])}
    sample = {**given, "strong_image": weak + 1, "pasted": torch.zeros(1, *weak.shape[1:], dtype=torch.bool)}
    loss = Recorder()
    annotated, unlabeled = loaders([given] * BATCH, [sample] * UNLABELED_BATCH)
    self_trainer(GivenLogits(), annotated, unlabeled, started(), loss_function=loss).run()
    expected = [0, 0, 0, 255, 1, 2, 255, 255]
    assert loss.calls[1][1][:, 0].flatten(0, 1)[:8, 0].tolist() == expected
    self_trainer(GivenLogits(), annotated, unlabeled, started(confidence=0.6), loss_function=loss).run()
    assert loss.calls[3][1][0, 0, :, 0].tolist() == [0, 0, 0, 0, 1, 2, 1, 255]


def test_seeds_are_learned_from_until_the_teacher_is_asked():
    annotated, unlabeled = items()
    for item in unlabeled:
        item["label"][:, :4] = 255
    parts, loss, progress = loaders(annotated, unlabeled), Recorder(), ClassProgress(NAMES, 20, latest_start=0.95)
    trainer = self_trainer(small_network(), *parts, progress, loss_function=loss, seeded=True)
    found = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: found.append(dict(trainer.state.output)))
    trainer.run()
    assert progress.start is None
    assert len(loss.calls) == 2 * STEPS
    for step, (own, others) in enumerate(zip(*parts, strict=True)):
        parts_of_loss = [call(*loss.calls[2 * step + k]).item() for k, call in enumerate([PresentClassesLoss()] * 2)]
        _, target = mixed(others, others["strong_image"], others["label"], own["image"], own["label"])
        assert torch.equal(loss.calls[2 * step + 1][1], target)
        weight = min(1.0, 0.1 + (step + 1) / 2)
        assert found[step]["loss"].item() == pytest.approx(parts_of_loss[0] + weight * parts_of_loss[1])
        assert found[step]["believed"].item() == pytest.approx((target != 255).float().mean().item())
    progress.start = 0
    self_trainer(small_network(), *parts, progress, loss_function=loss, seeded=True).run()
    _, target = loss.calls[2 * STEPS + 1]
    assert not torch.equal(target, loss.calls[1][1]), "the teacher's labels now"


def test_pixels_that_do_not_count_get_no_gradient():
    annotated, unlabeled = items()
    for item in annotated:
        item["label"][:, 3:6, 2:9] = 255
    loss = Recorder()
    self_trainer(small_network(), *loaders(annotated, unlabeled), started(confidence=0.4), loss_function=loss).run()
    assert len(loss.calls) == 2 * STEPS
    for logits, target in loss.calls:
        ignored = (target == 255).expand_as(logits)
        assert ignored.any()
        assert not logits.grad[ignored].any()
        assert logits.grad[~ignored].any()


class Unread:
    """Unlabeled slices that must not be asked for."""

    sampler = None

    def __iter__(self):
        raise AssertionError("unlabeled slices were read")


def test_before_the_start_and_without_unlabeled_slices_it_is_plain_training():
    annotated = loaders(*items(15))[0]
    progress = [ClassProgress(NAMES, 100, latest_start=0.3) for _ in range(2)]
    networks = [small_network() for _ in range(3)]
    outputs = []
    for network, others, each in zip(networks, (Unread(), None), progress, strict=False):
        trainer = self_trainer(network, annotated, others, each)
        trainer.run()
        outputs.append(trainer.state.output)
    optimizer = torch.optim.SGD(networks[2].parameters(), 0.1)
    for batch in annotated:
        optimizer.zero_grad()
        loss = PresentClassesLoss()(networks[2](batch["image"]), batch["label"])
        loss.backward()
        optimizer.step()
    for network, output in zip(networks, outputs, strict=False):
        assert_close(network, networks[2])
        assert output["loss"].item() == pytest.approx(loss.item(), rel=1e-5)
        assert (output["unlabeled_loss"].item(), output["believed"].item()) == (0, 0)
        assert output["annotated_loss"] == output["loss"]
    assert all(each.start is None for each in progress)
    torch.testing.assert_close(progress[0].dice, progress[1].dice)


def test_weights_of_classes_fade_without_unlabeled_slices_too():
    seen, progress = [], ClassProgress(NAMES, 100, latest_start=0.05)

    def loss(logits, target, weights=None):
        seen.append(weights)
        return entropy_of_known(logits, target, weights)

    weights = torch.tensor([0.5, 1.0, 4.0])
    trainer = self_trainer(
        small_network(), loaders(*items(15))[0], None, progress, loss_function=loss, class_weights=weights
    )
    trainer.run()
    assert progress.start == 10
    torch.testing.assert_close(seen[8], weights)
    torch.testing.assert_close(seen[14], weights ** (85 / 90))


def test_unlabeled_slices_begin_when_the_progress_says_so():
    parts, loss = loaders(*items(25)), Recorder()
    progress = ClassProgress(NAMES, 100, latest_start=0.15)
    self_trainer(small_network(), *parts, progress, loss_function=loss).run()
    assert progress.start == 20
    assert len(loss.calls) == 19 + 2 * 6
    assert [len(target) for _, target in loss.calls[18:21]] == [BATCH, BATCH, UNLABELED_BATCH]


def test_events_and_output():
    seen = []
    trainer = self_trainer(small_network(), *loaders(*items(1)), started())

    def note(engine, name):
        seen.append((name, set(engine.state.output)))

    for event in (*IterationEvents, Events.ITERATION_COMPLETED):
        trainer.add_event_handler(event, note, event.name)
    trainer.run()
    names = ["FORWARD_COMPLETED", "LOSS_COMPLETED", "BACKWARD_COMPLETED", "MODEL_COMPLETED", "ITERATION_COMPLETED"]
    assert [name for name, _ in seen] == names
    figures = {"loss", "annotated_loss", "unlabeled_loss", "believed"}
    assert [keys for _, keys in seen] == [{"image", "label", "pred"}, *[{"image", "label", "pred"} | figures] * 4]
    assert trainer.state.output["pred"].shape == (BATCH, 3, 16, 16)
    assert not any(trainer.state.output[name].requires_grad for name in figures)


def test_no_epoch_repeats_the_slices_of_another():
    """A resumed training begins with an epoch, whose slices depend on its number alone."""
    drawn = []

    class Numbers(UnlabeledSlices):
        def __getitems__(self, indices):
            drawn.extend(indices)
            return super().__getitems__(indices)

    samples = AnnotatedSlices(slices(), 2 * BATCH, 2), Numbers(slices(9), 2 * UNLABELED_BATCH)
    parts = [episode_loader(part, size) for part, size in zip(samples, (BATCH, UNLABELED_BATCH), strict=True)]
    self_trainer(small_network(), *parts, started(), max_epochs=3).run()
    assert drawn == list(range(3 * 2 * UNLABELED_BATCH))


def test_the_teacher_labels_in_evaluation_mode_and_is_not_trained():
    modes = []

    class Noting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 3, 1)

        def forward(self, image):
            modes.append((self.training, len(image)))
            return self.layer(image)

    network = Noting()
    trainer = self_trainer(network, *loaders(*items(1)), started())
    trainer.run()
    assert modes == [(False, UNLABELED_BATCH), (True, BATCH + UNLABELED_BATCH)]
    assert all(p.grad is None for p in trainer.teacher.network.parameters())
    assert all(p.grad is not None for p in network.parameters())
