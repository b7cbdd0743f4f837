# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
from ignite.engine import Engine

from monai_fewshot.handlers import TotalProgress, total_progress


@pytest.fixture
def bars(monkeypatch):
    """All bars that are shown, with what they were told."""
    shown = []

    class Bar:
        def __init__(self, **options):
            self.options, self.steps, self.closed = options, 0, False
            shown.append(self)

        def update(self):
            self.steps += 1

        def close(self):
            self.closed = True

    monkeypatch.setattr(total_progress, "tqdm", Bar)
    return shown


def test_all_iterations_are_counted(bars):
    engine = Engine(lambda engine, batch: None)
    TotalProgress("learning").attach(engine)
    engine.run(range(3), max_epochs=2)
    (bar,) = bars
    assert bar.options == {"desc": "learning", "total": 6, "initial": 0, "unit": "step"}
    assert bar.steps == 6
    assert bar.closed


def test_a_resumed_training_goes_on_where_it_was(bars):
    engine = Engine(lambda engine, batch: None)
    TotalProgress().attach(engine)
    engine.load_state_dict({"epoch": 1, "epoch_length": 3, "max_epochs": 4})
    engine.run(range(3), max_epochs=4)
    (bar,) = bars
    assert (bar.options["initial"], bar.options["total"], bar.steps) == (3, 12, 9)


def test_an_error_ends_the_bar_and_is_raised(bars):
    def fail(engine, batch):
        if batch == 1:
            raise ValueError("no")

    engine = Engine(fail)
    TotalProgress().attach(engine)
    with pytest.raises(ValueError, match="no"):
        engine.run(range(3))
    assert bars[0].closed
