# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from monai_fewshot.handlers import Teacher


def trained(teacher, student, weights, start=0):
    """Give the student one weight after the other; return the teacher's weight after each step."""
    found = []

    def step(engine, weight):
        with torch.no_grad():
            student.weight.fill_(weight)

    engine = Engine(step)
    teacher.attach(engine)
    engine.add_event_handler("ITERATION_COMPLETED", lambda: found.append(teacher.network.weight.item()))
    if start:
        engine.load_state_dict(
            {"iteration": start, "max_epochs": start // len(weights) + 1, "epoch_length": len(weights)}
        )
        engine.run(weights)
    else:
        engine.run(weights)
    return found


def closed_form(weights, momentum):
    """The average as a sum: the mean of the first 1 / momentum steps, and then an exponential average."""
    first = int(1 / momentum)
    if len(weights) <= first:
        return sum(weights) / len(weights)
    later = len(weights) - first
    mean = (1 - momentum) ** later * sum(weights[:first]) / first
    return mean + sum(momentum * (1 - momentum) ** (later - 1 - n) * w for n, w in enumerate(weights[first:]))


@pytest.mark.parametrize("momentum", [0.125, 0.5, 1.0])
def test_it_is_the_closed_form_of_the_moving_average(momentum):
    weights = torch.rand(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    student = nn.Linear(1, 1).double()
    found = trained(Teacher(student, momentum), student, weights)
    assert found == pytest.approx([closed_form(weights[: n + 1], momentum) for n in range(30)], rel=1e-12)


def test_an_interrupted_average_goes_on():
    weights = torch.rand(8, generator=torch.Generator().manual_seed(0)).tolist()
    student = nn.Linear(1, 1)
    whole = trained(Teacher(student, 0.05), student, weights * 2)
    first = Teacher(student, 0.05)
    trained(first, student, weights)
    second = Teacher(nn.Linear(1, 1), 0.05)
    second.load_state_dict(first.state_dict())
    second.student = student
    assert trained(second, student, weights, start=8)[-8:] == whole[8:]


def test_it_evaluates_has_no_gradients_and_is_no_part_of_the_student():
    student = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout())
    teacher = Teacher(student)
    assert student.training
    assert not any(module.training for module in teacher.network.modules())
    assert all(p.requires_grad for p in student.parameters())
    assert not any(p.requires_grad for p in teacher.network.parameters())
    before = [p.clone() for p in teacher.network.parameters()]
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1)
    assert all(torch.equal(p, q) for p, q in zip(before, teacher.network.parameters(), strict=True))


def test_buffers_are_copied():
    student = nn.BatchNorm2d(2)
    teacher = Teacher(student)
    engine = Engine(lambda engine, batch: student(batch))
    teacher.attach(engine)
    engine.run([torch.rand(2, 2, 4, 4) + 5] * 3)
    assert torch.equal(teacher.network.running_mean, student.running_mean)
    assert teacher.network.running_mean.min() > 1
    assert teacher.network.num_batches_tracked == 3


@pytest.mark.parametrize("momentum", [0.0, 1.1, -0.1])
def test_bad_momentum(momentum):
    with pytest.raises(ValueError, match="must be above 0 and at most 1"):
        Teacher(nn.Linear(1, 1), momentum)
