# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import math

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_fewshot.handlers import ConvergenceStop, TrainingCheckpoints


def run(figures, stop, max_epochs=None):
    """Train with the figures of the epochs as given; return the trainer."""
    trainer = Engine(lambda *_: None)
    trainer.logger.setLevel(logging.INFO)
    stop.figure = lambda engine: figures[engine.state.epoch - 1]
    stop.attach(trainer)
    trainer.run([0, 1], max_epochs=len(figures) if max_epochs is None else max_epochs)
    return trainer


def last_epoch(figures, epochs, max_change):
    """The epoch at which a training stops, in the words of the paper: no two figures differ by more."""
    for epoch in range(epochs + 1, len(figures) + 1):
        window = figures[epoch - epochs - 1 : epoch]
        if all(abs(one - other) <= max_change for one in window for other in window):
            return epoch
    return len(figures)


RISING = [0.001 * n for n in range(40)]
STEP = [1.0, 0.9, 0.8, *[0.7] * 3, 0.6, *[0.5] * 30]
WAVE = [0.5 + 0.25 * (n % 2) for n in range(40)]


@pytest.mark.parametrize(
    ("figures", "epochs", "max_change", "stopped"),
    [
        ([0.5] * 40, 10, 1e-3, 11),
        ([0.5] * 40, 1, 0.0, 2),
        (STEP, 10, 1e-3, 18),
        (STEP, 2, 1e-3, 6),
        (STEP, 10, 0.1001, 17),
        (RISING, 10, 1e-3, 40),
        (RISING, 10, 0.0101, 11),
        (RISING, 10, 0.0099, 40),
        (WAVE, 10, 0.25, 11),
        (WAVE, 10, 0.2499, 40),
        ([0.5] * 10, 10, 1e-3, 10),
        ([0.5, math.nan, *[0.5] * 20], 10, 1e-3, 13),
        ([math.nan] * 15, 10, 1e-3, 15),
    ],
)
def test_it_stops_where_nothing_has_changed(figures, epochs, max_change, stopped):
    assert run(figures, ConvergenceStop(None, epochs, max_change)).state.epoch == stopped
    assert last_epoch(figures, epochs, max_change) == stopped


@pytest.mark.parametrize("seed", range(20))
def test_it_stops_where_a_plain_search_says(seed):
    generator = torch.Generator().manual_seed(seed)
    figures = (torch.rand(30, generator=generator) * 0.8 ** torch.arange(30)).tolist()
    assert run(figures, ConvergenceStop(None, 4, 0.05)).state.epoch == last_epoch(figures, 4, 0.05) < 30


def test_it_says_why(caplog):
    with caplog.at_level(logging.INFO):
        run([1.0, 0.5, 0.5, 0.5, 0.5], ConvergenceStop(None, 2, 0.02))
    assert "Converged: the loss has changed by no more than 0.02 over 2 epochs." in caplog.text


def test_the_defaults_are_those_of_the_paper():
    stop = ConvergenceStop(lambda engine: 0.0)
    assert (stop.epochs, stop.max_change) == (10, 1e-3)


def test_the_figure_may_be_a_tensor():
    stop = ConvergenceStop(None, 2)
    run([torch.tensor(0.25), torch.tensor(0.5)], stop)
    assert stop.state_dict() == {"history": [0.25, 0.5]}


@pytest.mark.parametrize("stop_after", [1, 5, 13, 16])
def test_a_state_goes_on(stop_after):
    first, second = ConvergenceStop(None), ConvergenceStop(None)
    run(STEP, first, max_epochs=stop_after)
    state = first.state_dict()
    second.load_state_dict(state)
    trainer = run(STEP[stop_after:], second)
    assert stop_after + trainer.state.epoch == 18
    assert len(second.history) == 11
    assert state == first.state_dict()


def _training(folder, max_epochs, resume=False):
    """A trainer that keeps checkpoints, and stops at epoch 18."""
    trainer = Engine(lambda *_: None)
    stop = ConvergenceStop(lambda engine: STEP[engine.state.epoch - 1])
    stop.attach(trainer)
    TrainingCheckpoints(folder, {"model": nn.Linear(1, 1), "stop": stop}, resume).attach(trainer)
    epochs = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: epochs.append(engine.state.epoch))
    trainer.run([0], max_epochs=max_epochs)
    return epochs


def test_it_survives_a_resumed_training(tmp_path):
    assert _training(tmp_path / "whole", 30) == list(range(1, 19))
    assert _training(tmp_path / "parts", 14) == list(range(1, 15))
    assert _training(tmp_path / "parts", 30, resume=True) == [15, 16, 17, 18]
