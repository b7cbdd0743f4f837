# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import pytest

from monai_fewshot.apps.phantom import make_phantom_dataset
from monai_fewshot.engines import SelfTrainer

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import self_training_steps


def test_the_table_has_the_fastest_turn_of_each_cell_and_its_ratio_to_the_default(monkeypatch, tmp_path):
    cells = list(product(self_training_steps.NORMS, self_training_steps.DTYPES, (False, True)))
    seconds = {cell: 0.1 * (number + 1) for number, cell in enumerate(cells)}
    calls = []

    def timed(dataset_dir, *cell_and_rest):
        *cell, steps, device = cell_and_rest
        calls.append((tuple(cell), dataset_dir, steps, device))
        return seconds[tuple(cell)] * (2 if len(calls) <= len(cells) else 1)

    monkeypatch.setattr(self_training_steps, "fastest_step", timed)
    rows = [line.strip("| ").split(" | ") for line in self_training_steps.table(tmp_path, 3, 2, "cpu").splitlines()]
    assert [call[0] for call in calls] == 2 * cells, "in turns"
    assert {call[1:] for call in calls} == {(tmp_path, 3, "cpu")}
    assert rows[2] == ["groups of 8", "float32", "0.100", "0.200", "1.00 and 1.00"]
    assert rows[4] == ["instance", "float32", "0.500", "0.600", "5.00 and 3.00"]


@pytest.mark.parametrize("taught", [False, True])
def test_a_step_is_one_of_the_bundle(taught, tmp_path, monkeypatch):
    make_phantom_dataset(tmp_path / "data", num_volumes=5, size=(64, 64, 8))
    asked, step = [], SelfTrainer._mix
    monkeypatch.setattr(SelfTrainer, "_mix", lambda self, *args: asked.append(args[-1]) or step(self, *args))
    ticks = iter([0.0, 5.0, 6.0, 10.0])
    monkeypatch.setattr(self_training_steps, "clock", lambda device: next(ticks))
    found = self_training_steps.fastest_step(tmp_path / "data", "instance", "float32", taught, 2, "cpu")
    assert found == 1.0, "the steps that warm up do not count"
    assert asked == [True] * 4 * taught
