# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Meta-steps against loops that autograd unrolls task by task."""

from __future__ import annotations

import copy
import logging
import re

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Events
from ignite.metrics import Average
from monai.data import DataLoader
from monai.engines import IterationEvents
from monai.handlers import LrScheduleHandler
from process_groups import in_processes
from torch import nn
from torch.func import functional_call

from monai_fewshot.data import EpisodeSampler, SliceStack, TaskEpisodes, collate_episodes
from monai_fewshot.engines import MetaTrainer
from monai_fewshot.handlers import TrainingCheckpoints
from monai_fewshot.losses import DiceBCELoss
from monai_fewshot.meta import MAML, ImplicitMAML, InnerLoop, Reptile
from monai_fewshot.networks.nets import MetaLearnedSegmenter

LOOP = InnerLoop(3, 0.3)
LR = 0.5


def segmenter(inner=LOOP, **options):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 1, 3, padding=1))
    return MetaLearnedSegmenter(base, inner, DiceBCELoss(), **options).double()


def tasks(count, bad=(), place=0):
    """Items with two support images and three queries; of bad ones the image at a place of the five holds a NaN."""
    generator = torch.Generator().manual_seed(3)
    items = []
    for number in range(count):
        image = torch.randn(5, 1, 8, 8, generator=generator).double()
        label = (image > number / 4).double()
        if number in bad:
            image[place, 0, 2, 2] = torch.nan
        items.append(
            {
                "support_image": image[:2],
                "support_label": label[:2],
                "image": image[2:],
                "label": label[2:],
                "number": torch.tensor(100 + number),
            }
        )
    return items


def trainer_of(network, items, batch_size=4, max_epochs=1, method=None, optimizer=None, **options):
    return MetaTrainer(
        device="cpu",
        max_epochs=max_epochs,
        train_data_loader=DataLoader(items, batch_size=batch_size, collate_fn=collate_episodes),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), LR) if optimizer is None else optimizer,
        meta_gradient=MAML(network.inner) if method is None else method,
        **options,
    )


def unrolled(network, item):
    """Meta-gradients of parameters and rates, and the losses on support and query, of one task."""
    start = dict(network.base.named_parameters())
    rates = list(network.rates) if network.rates is not None else [torch.ones(()).double()] * len(start)

    def loss(point, image, label):
        return DiceBCELoss()(functional_call(network.base, point, (image,)), label)

    point, losses = start, []
    for _ in range(network.inner.steps):
        losses.append(loss(point, item["support_image"], item["support_label"]))
        gradients = torch.autograd.grad(losses[-1], list(point.values()), create_graph=True)
        point = {
            name: p - network.inner.lr * rate * gradient
            for (name, p), gradient, rate in zip(point.items(), gradients, rates, strict=True)
        }
    query = loss(point, item["image"], item["label"])
    learned = [*start.values(), *(rates if network.rates is not None else [])]
    return torch.autograd.grad(query, learned), [value.item() for value in losses], query.item()


def mean_gradient(network, items):
    found = [unrolled(network, item)[0] for item in items]
    return [torch.stack(gradients).mean(0) for gradients in zip(*found, strict=True)]


def weights(network):
    return [p.detach().clone() for p in network.parameters()]


def assert_close(found, expected, **tolerances):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerances)


@pytest.mark.parametrize("learn_rates", [False, True])
def test_a_meta_step_goes_along_the_mean_meta_gradient_of_its_tasks(learn_rates):
    network, items = segmenter(learn_rates=learn_rates), tasks(8)
    expected = copy.deepcopy(network)
    for batch in (items[:4], items[4:]):
        gradients = mean_gradient(expected, batch)
        with torch.no_grad():
            for p, gradient in zip(expected.parameters(), gradients, strict=True):
                p -= LR * gradient
    before = weights(network)
    trainer_of(network, items).run()
    assert_close(weights(network), weights(expected), rtol=1e-9, atol=1e-12)
    assert all((one - other).abs().max() > 1e-4 for one, other in zip(weights(network), before, strict=True))


def test_what_a_meta_step_reports():
    network, items = segmenter(), tasks(4)
    found = [unrolled(network, item) for item in items]
    trainer = trainer_of(network, items)
    trainer.run()
    output = trainer.state.output
    assert output["loss"].item() == pytest.approx(sum(query for _, _, query in found) / 4)
    assert output["support_loss"].item() == pytest.approx(sum(losses[0] for _, losses, _ in found) / 4)
    assert (output["tasks"], output["skipped"]) == (4, 0)
    assert output["support_image"].shape == (4, 2, 1, 8, 8)
    assert output["label"].shape == (12, 1, 8, 8)
    assert all(type(key) is str for key in output)


def test_tasks_that_are_not_collated_to_queries_in_a_row_are_refused():
    trainer = trainer_of(segmenter(), tasks(4))
    trainer.state.dataloader = trainer.data_loader = DataLoader(tasks(4), batch_size=4)
    with pytest.raises(ValueError, match=r"\(4, 2, 1, 8, 8\) do not fit queries \(4, 3, 1, 8, 8\): .* E divides B"):
        trainer.run()


def test_figures_of_the_meta_gradient_are_averaged():
    network, items = segmenter(InnerLoop(3, 0.3, proximal=1.0)), tasks(4)
    method = ImplicitMAML(network.inner, max_steps=2)
    data = [torch.stack([item[key] for item in items]) for key in ("support_image", "support_label", "image", "label")]
    step = method(network.task_loss, network.start, tuple(data[:2]), tuple(data[2:]))
    before = weights(network)
    trainer = trainer_of(network, items, method=method)
    trainer.run()
    assert step.diagnostics.keys() <= trainer.state.output.keys()
    for name, figures in step.diagnostics.items():
        torch.testing.assert_close(trainer.state.output[name], figures.mean())
    expected = [p - LR * g for p, g in zip(before, step.parameters.values(), strict=True)]
    assert_close(weights(network), expected, rtol=1e-9, atol=1e-12)


def test_without_inner_steps_it_is_plain_training_on_the_queries():
    network, items = segmenter(InnerLoop(0)), tasks(4)
    expected = copy.deepcopy(network.base)
    loss = torch.stack([DiceBCELoss()(expected(item["image"]), item["label"]) for item in items]).mean()
    loss.backward()
    torch.optim.SGD(expected.parameters(), LR).step()
    trainer = trainer_of(network, items)
    trainer.run()
    assert_close(weights(network), weights(expected), rtol=1e-9, atol=1e-12)
    assert trainer.state.output["loss"].item() == pytest.approx(loss.item())
    assert "support_loss" not in trainer.state.output


def test_events_fire_in_the_order_of_monais_trainer():
    network, seen = segmenter(), []
    network.eval()
    before = weights(network)
    trainer = trainer_of(network, tasks(8))

    def note(engine, event):
        moved = not all(torch.equal(one, other) for one, other in zip(network.parameters(), before, strict=True))
        gradients = all(p.grad is not None for p in network.parameters())
        seen.append((event, moved, gradients, "loss" in engine.state.output))

    inner = [
        IterationEvents.FORWARD_COMPLETED,
        IterationEvents.LOSS_COMPLETED,
        IterationEvents.BACKWARD_COMPLETED,
        IterationEvents.MODEL_COMPLETED,
    ]
    for event in inner:
        trainer.add_event_handler(event, note, event)
    trainer.run()
    assert seen[:4] == [
        (inner[0], False, False, False),
        (inner[1], False, False, True),
        (inner[2], False, True, True),
        (inner[3], True, True, True),
    ]
    assert [event for event, *_ in seen] == inner * 2
    assert network.training
    assert not network.base.training


def test_handlers_and_metrics_of_monai_and_ignite():
    network = segmenter()
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    losses = []
    trainer = trainer_of(
        network,
        tasks(6),
        batch_size=2,
        max_epochs=2,
        optimizer=optimizer,
        epoch_length=2,
        key_train_metric={"mean": Average(lambda output: output["loss"])},
        train_handlers=[LrScheduleHandler(schedule, print_lr=False, epoch_level=False)],
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output["loss"]))
    trainer.run()
    assert (trainer.state.iteration, len(losses)) == (4, 4)
    assert optimizer.param_groups[0]["lr"] == 1 / 16
    means = [torch.stack(part).mean().item() for part in (losses[:2], losses[2:])]
    assert trainer.state.metrics["mean"] == pytest.approx(means[1])
    assert trainer.state.best_metric == pytest.approx(min(means))
    assert trainer.state.best_metric_epoch == means.index(min(means)) + 1


def test_parameters_that_need_no_gradient_stay():
    network = segmenter()
    network.base[0].weight.requires_grad = False
    before = weights(network)
    trainer_of(network, tasks(4), optimizer=torch.optim.SGD(list(network.start.values()), LR)).run()
    moved = [not torch.equal(one, other) for one, other in zip(network.parameters(), before, strict=True)]
    assert moved == [False, True, True, True]
    assert network.base[0].weight.grad is None


def test_rates_that_cannot_be_learned():
    network = segmenter(learn_rates=True)
    with pytest.raises(ValueError, match="Reptile cannot learn inner rates"):
        trainer_of(network, tasks(4), method=Reptile(network.inner)).run()


@pytest.mark.parametrize(
    ("place", "history"),
    [(0, "inner losses nan, nan, nan"), (3, r"inner losses (0\.\d+), (0\.\d+), (0\.\d+)")],
    ids=["support", "query"],
)
def test_a_task_that_is_not_finite_is_left_out_and_named(caplog, place, history):
    network, items = segmenter(), tasks(4, [1, 2], place)
    good = [items[0], items[3]]
    found, before = [unrolled(network, item) for item in good], weights(network)
    gradients = mean_gradient(network, good)
    trainer = trainer_of(network, items)
    with caplog.at_level(logging.WARNING, "monai_fewshot"):
        trainer.run()
    expected = [p - LR * g for p, g in zip(before, gradients, strict=True)]
    assert_close(weights(network), expected, rtol=1e-9, atol=1e-12)
    output = trainer.state.output
    assert (output["tasks"], output["skipped"]) == (4, 2)
    assert output["loss"].item() == pytest.approx((found[0][2] + found[1][2]) / 2)
    assert output["support_loss"].item() == pytest.approx((found[0][1][0] + found[1][1][0]) / 2)
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("monai_fewshot")]
    assert len(messages) == 2
    for number, message in zip((101, 102), messages, strict=True):
        start = "Left out, for not all of its losses and gradients are finite, "
        assert re.fullmatch(f"{start}task {number}: {history}; loss on the query nan", message)


def test_a_meta_step_without_a_sound_task_changes_nothing():
    """Neither the momentum of the optimizer nor its weight decay."""
    network, items = segmenter(), [*tasks(2), *tasks(2, bad=[0, 1])]
    optimizer = torch.optim.AdamW(network.parameters(), 0.1, weight_decay=0.5)
    states = []
    trainer = trainer_of(network, items, batch_size=2, optimizer=optimizer)

    @trainer.on(Events.ITERATION_COMPLETED)
    def keep(engine):
        states.append((weights(network), copy.deepcopy(optimizer.state_dict()), engine.state.output["loss"].item()))

    trainer.run()
    (first, before, loss), (second, after, no_loss) = states
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert str(before) == str(after)
    assert loss == loss
    assert no_loss != no_loss
    assert trainer.state.output["skipped"] == 2


BAD_IMAGES = r"The loss is not finite before the first inner step: the images hold values .* Check the images, or take"
DIVERGES = r"The inner loop diverges: 3 steps of sgd with lr 1e\+300 are too long\. Take a lower lr or fewer steps"
AT_THE_EDGE = (
    r"The inner loop ends, but what follows is not finite: its 1 steps of sgd with lr 1e\+300 are at the edge of "
    r"diverging\. Take a lower lr, or first-order"
)


@pytest.mark.parametrize(
    ("inner", "bad", "history", "diagnosis"),
    [
        (LOOP, [0, 1], "inner losses nan, nan, nan; loss on the query nan", BAD_IMAGES),
        (InnerLoop(3, 1e300), [], r"inner losses 0\.\d+, (nan|inf), (nan|inf); loss on the query (nan|inf)", DIVERGES),
        (InnerLoop(1, 1e300), [], r"inner losses 0\.\d+; loss on the query (nan|inf)", AT_THE_EDGE),
    ],
)
def test_a_training_that_goes_wrong_stops_with_a_diagnosis(inner, bad, history, diagnosis):
    network = segmenter(inner)
    network.base[1] = nn.ReLU()
    before = weights(network)
    trainer = trainer_of(network, tasks(2, bad), batch_size=2, max_epochs=20, max_skipping=4)
    with pytest.raises(RuntimeError) as error:
        trainer.run()
    text = str(error.value)
    assert text.startswith(
        "4 meta-steps in a row had tasks whose losses or gradients are not finite; the last, task 100"
    )
    assert re.search(f"task 100: {history}; task 101: {history}. {diagnosis}", text)
    assert trainer.state.iteration == 4
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), before, strict=True))


def test_only_meta_steps_in_a_row_count():
    bad, good = tasks(2, bad=[1]), tasks(2)
    trainer = trainer_of(
        segmenter(), [*bad, *bad, *good, *bad, *bad, *good], batch_size=2, max_epochs=3, max_skipping=3
    )
    trainer.run()
    assert trainer.state.iteration == 18
    trainer = trainer_of(segmenter(), [*good, *bad, *bad, *bad], batch_size=2, max_skipping=3)
    with pytest.raises(RuntimeError, match=f"3 meta-steps in a row .* the last, task 101: .* {BAD_IMAGES}"):
        trainer.run()
    assert trainer.state.iteration == 4


def training(folder, resume=False, epochs=4):
    """A training on tasks that differ in every iteration, with everything that has a state."""
    network = segmenter(learn_rates=True).float()
    image = torch.rand(12, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    label = (image > 0.5).to(torch.uint8) * (1 + torch.arange(12).view(-1, 1, 1, 1) // 6)
    dataset = TaskEpisodes(SliceStack(image, label, torch.arange(12)), 4, [1, 2], shots=2, queries=3)
    optimizer = torch.optim.AdamW(network.parameters(), 0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4 * 2)
    objects = {"model": network, "optimizer": optimizer, "schedule": schedule}
    trainer = MetaTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=DataLoader(
            dataset, batch_size=2, sampler=EpisodeSampler(dataset), collate_fn=collate_episodes
        ),
        network=network,
        optimizer=optimizer,
        meta_gradient=MAML(network.inner),
        train_handlers=[
            LrScheduleHandler(schedule, print_lr=False, epoch_level=False),
            TrainingCheckpoints(folder, objects, resume),
        ],
    )
    losses = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output["loss"].item()))
    trainer.run()
    return weights(network), losses


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_training_goes_on_exactly(tmp_path, stop):
    whole, losses = training(tmp_path / "whole")
    _, first = training(tmp_path / "parts", epochs=stop)
    resumed, rest = training(tmp_path / "parts", resume=True)
    assert [*first, *rest] == losses
    assert len(set(losses)) == 8
    assert all(torch.equal(one, other) for one, other in zip(resumed, whole, strict=True))


BATCHES = {
    "sound": tasks(4),
    "uneven": tasks(4, bad=[1]),
    "one process has none": tasks(4, bad=[0, 1]),
    "none at all": tasks(4, bad=[0, 1, 2, 3]),
}


def _in_a_group(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    try:
        found = {}
        for name, items in BATCHES.items():
            network = segmenter(learn_rates=True)
            trainer = trainer_of(network, items[2 * rank :][:2], batch_size=2)
            trainer.run()
            output = {key: float(trainer.state.output[key]) for key in ("loss", "support_loss", "tasks", "skipped")}
            found[name] = (weights(network), output)
        items = BATCHES["uneven"][2 * rank :][:2]
        with pytest.raises(RuntimeError) as error:
            trainer_of(segmenter(), items, batch_size=2, max_epochs=5, max_skipping=3).run()
        torch.save((found, str(error.value)), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_do_what_one_does_with_all_their_tasks(tmp_path):
    in_processes(_in_a_group, tmp_path)
    (first, told), (second, untold) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, items in BATCHES.items():
        network = segmenter(learn_rates=True)
        trainer = trainer_of(network, items)
        trainer.run()
        assert_close(first[name][0], weights(network), rtol=1e-10, atol=1e-13)
        assert all(torch.equal(one, other) for one, other in zip(first[name][0], second[name][0], strict=True))
        for _, output in (first[name], second[name]):
            expected = {key: float(trainer.state.output[key]) for key in output}
            assert output == pytest.approx(expected, nan_ok=True)
    assert "the last, task 101: inner losses nan" in told
    assert "the last, in another process" in untold
