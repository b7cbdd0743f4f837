# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import meta_steps
import meta_steps_report

SETTING = meta_steps.Setting(16, 1, 1, 2, 2, 1, "cpu", 2, channels=(4, 8))
MARKED = "before\n<!-- meta_steps:begin -->\nold\n<!-- meta_steps:end -->\nafter\n"


@pytest.fixture(autouse=True)
def _threads_stay(monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_plain_loop_is_held_to_the_vectorized_meta_gradient(steps, monkeypatch):
    setting = replace(SETTING, steps=steps)
    meta_steps.check(setting)
    monkeypatch.setattr(meta_steps.Problem, "plain", meta_steps.Problem.first_order)
    with pytest.raises(RuntimeError, match="MAML differs from the plain loop by"):
        meta_steps.check(setting)


def test_the_plain_loop_is_the_derivative_of_what_it_judges():
    problem = meta_steps.Problem(replace(SETTING, tasks=1), torch.float64, smooth=True)

    def judged(start):
        adapted = problem.inner.adapt(problem.network.task_loss, start, [x[0] for x in problem.support])
        return problem.network.task_loss(adapted.parameters, [x[0] for x in problem.query]).item()

    name, step = next(iter(problem.start)), 1e-5
    direction = torch.ones_like(problem.start[name])
    ahead, behind = (judged({**problem.start, name: problem.start[name] + s * direction}) for s in (step, -step))
    assert float(problem.plain()[name].sum()) == pytest.approx((ahead - behind) / (2 * step), rel=1e-5)


def test_variants_take_turns_and_the_fastest_turn_counts(monkeypatch):
    clock = iter([0, 9, 10, 25, 30, 34, 40, 48])
    taken = []
    monkeypatch.setattr(meta_steps, "check", lambda setting: None)
    monkeypatch.setattr(meta_steps, "synchronized", lambda device: next(clock))
    for name, value in (("vectorized", 3.0), ("plain", 2.0)):
        made = {"x": torch.tensor([value, 0.0])}
        monkeypatch.setitem(meta_steps.VARIANTS, name, lambda problem, n=name, m=made: (taken.append(n), m)[1])
    timed = meta_steps.timing_cell(SETTING, ("vectorized", "plain"))
    assert taken == ["vectorized", "plain"] * 2
    assert timed == {"seconds": {"vectorized": 4, "plain": 8}, "difference": 0.5}


def test_memory_grows_with_the_inner_steps_of_maml():
    setting = replace(SETTING, image_size=32, shots=4)
    few, many = (
        meta_steps.in_own_process(meta_steps.memory_cell, replace(setting, steps=steps), "vectorized")
        for steps in (1, 6)
    )
    assert many > few > 0


def test_the_share_of_convolutions_is_one():
    shares = meta_steps.profile_cell(replace(SETTING, steps=1))
    assert set(shares) == {"vectorized", "plain"}
    assert all(0 < share < 1 for share in shares.values())


def test_tables_and_claims_are_written_between_the_markers(tmp_path, monkeypatch):
    timed = {"seconds": dict(zip(meta_steps.VARIANTS, (2.0, 0.5, 0.25, 1.0), strict=True)), "difference": 2e-4}
    cells = {
        meta_steps.timing_cell: lambda setting, *_: timed,
        meta_steps.memory_cell: lambda setting, name: 10e6 * (setting.steps if name == "vectorized" else 1),
        meta_steps.profile_cell: lambda setting: {"vectorized": 0.8, "plain": 0.6},
    }
    monkeypatch.setattr(meta_steps.os, "environ", {})
    monkeypatch.setattr(meta_steps, "in_own_process", lambda function, *arguments: cells[function](*arguments))
    path = tmp_path / "performance.md"
    path.write_text(MARKED)
    words = ["--inner_steps", "1", "4", "--tasks", "4", "8", "--device", "cpu", "--results", str(path)]
    assert meta_steps.main(words) == 0
    text = path.read_text()
    assert text.startswith("before\n<!--")
    assert "| 1 | 4 | 0.5 | 2 | 4 | 1 | 2.00 | 10 | 10 | 10 | 10 | 2e-04 |" in text
    assert "| 4 | 8 | 0.5 | 2 | 4 | 1 | 2.00 | 10 | 40 | 10 | 10 | 2e-04 |" in text
    assert text.count("| 4 | 4 |") == 1
    assert "at 4 inner steps over that at 1: iMAML 1.00 (mark: 0.9 to 1.1), MAML 4.0" in text
    assert "over the plain loop at 8 tasks: 2.00 times (mark: 2)" in text
    assert "| 16 x 16 | 1 | 2 to 16 | 2 | 1 | 2.00 | 80 % | 60 % |" in text
    assert meta_steps_report.claims([]) == ""
