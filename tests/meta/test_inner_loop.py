# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Adaptation to tasks against torch.optim, task by task."""

from __future__ import annotations

import re

import pytest
import torch
from torch.func import grad, vmap

from monai_fewshot.meta import InnerLoop, InnerOptimizer

TASKS = 3
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


def loss(parameters, data):
    """Of a network with two layers that tells y = 1 from y = -1; one of its parameters has no dimension."""
    hidden = torch.tanh(data["x"] @ parameters["first"])
    return torch.nn.functional.softplus(-data["y"] * (hidden @ parameters["second"]) * parameters["scale"]).mean()


@pytest.fixture
def start():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(shape, generator=generator).double() for shape in ((4, 3), (3,)))
    return {"first": first, "second": second, "scale": torch.tensor(1.5).double()}


@pytest.fixture
def tasks():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(TASKS, 8, 4, generator=generator).double()
    return {"x": x, "y": torch.randn(TASKS, 8, generator=generator).double().sign()}


def task(tasks, index):
    return {name: values[index] for name, values in tasks.items()}


def with_torch(name, start, data, steps, lr, proximal=0.0):
    """Parameters, objectives and the last gradient's norm of an optimizer of torch."""
    point = {key: value.clone().requires_grad_() for key, value in start.items()}
    optimizer = OPTIMIZERS[name](point.values(), lr=lr)
    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(point, data)
        for key in point:
            value = value + proximal / 2 * (point[key] - start[key]).pow(2).sum()
        value.backward()
        optimizer.step()
        values.append(value.detach())
    norm = torch.cat([p.grad.flatten() for p in point.values()]).norm()
    return {key: p.detach() for key, p in point.items()}, torch.stack(values), norm


@pytest.mark.parametrize("proximal", [0.0, 2.0])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_takes_the_steps_of_torch(start, tasks, name, proximal):
    loop = InnerLoop(steps=25, lr=0.05, optimizer=name, proximal=proximal)
    together = loop.adapt_tasks(loss, start, tasks)
    assert together.losses.shape == (TASKS, 25)
    for index in range(TASKS):
        expected, values, norm = with_torch(name, start, task(tasks, index), 25, 0.05, proximal)
        alone = loop.adapt(loss, start, task(tasks, index))
        for key in start:
            torch.testing.assert_close(alone.parameters[key], expected[key], rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(together.parameters[key][index], expected[key], rtol=1e-5, atol=1e-7)
        for found in (alone.losses, together.losses[index]):
            torch.testing.assert_close(found, values, rtol=1e-6, atol=1e-8)
        for found in (alone.gradient_norm, together.gradient_norm[index]):
            torch.testing.assert_close(found, norm, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("tolerance", [0.0, 0.1])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_tasks_at_once_are_adapted_as_one_by_one(start, tasks, name, tolerance):
    loop = InnerLoop(12, 0.1, name, 1.0, tolerance)
    together = loop.adapt_tasks(loss, start, tasks)
    mapped = vmap(lambda data: loop.adapt(loss, start, data))(tasks)
    for index in range(TASKS):
        alone = loop.adapt(loss, start, task(tasks, index))
        for found in (together, mapped):
            torch.testing.assert_close(found.losses[index], alone.losses, rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(found.gradient_norm[index], alone.gradient_norm, rtol=1e-10, atol=1e-14)
            for key, expected in alone.parameters.items():
                torch.testing.assert_close(found.parameters[key][index], expected, rtol=1e-10, atol=1e-12)


def test_rates_scale_the_steps_of_each_element(start, tasks):
    generator = torch.Generator().manual_seed(2)
    rates = {"first": torch.rand(4, 3, generator=generator).double(), "second": torch.tensor(0.5).double()}
    found = InnerLoop(4, 0.2).adapt_tasks(loss, start, tasks, rates)
    for index in range(TASKS):
        point = {key: value.clone().requires_grad_() for key, value in start.items()}
        for _ in range(4):
            gradients = torch.autograd.grad(loss(point, task(tasks, index)), list(point.values()))
            with torch.no_grad():
                for (key, p), gradient in zip(point.items(), gradients, strict=True):
                    p -= 0.2 * gradient * rates.get(key, 1)
        for key, p in point.items():
            torch.testing.assert_close(found.parameters[key][index], p.detach(), rtol=1e-12, atol=1e-14)


def bowl(parameters, data):
    return data["curvature"] / 2 * (parameters["x"] - data["center"]).square().sum()


@pytest.fixture
def bowls():
    """With gradients of 0, sqrt(32) and 1 at 0, of which a step of 0.5 leaves the factors 0.5, 0.75 and 0.5."""
    centers = torch.tensor([[0.0, 0.0], [8.0, 8.0], [1.0, 0.0]]).double()
    return {"curvature": torch.tensor([1.0, 0.5, 1.0]).double(), "center": centers}


def test_a_converged_task_stays_put_while_others_move(bowls):
    norms, factors = (32**0.5, 1.0), (0.75, 0.5)
    moves = [next(n for n in range(100) if norm * f**n <= 0.1) for norm, f in zip(norms, factors, strict=True)]
    assert moves == [15, 4]
    found = InnerLoop(100, 0.5, tolerance=0.1).adapt_tasks(bowl, {"x": torch.zeros(2).double()}, bowls)
    left = torch.tensor([1.0, *(f**n for f, n in zip(factors, moves, strict=True))]).double()
    torch.testing.assert_close(found.parameters["x"], bowls["center"] * (1 - left[:, None]))
    torch.testing.assert_close(found.gradient_norm, torch.tensor([0.0, *norms]).double() * left)
    assert torch.equal(found.losses[2, 4:], found.losses[2, 4].expand(96))


def test_no_step_is_taken_once_all_have_converged_and_losses_stay_as_they_are(bowls):
    evaluated = []

    def counted(parameters, data):
        evaluated.append(parameters)
        return bowl(parameters, data)

    found = InnerLoop(100, 0.5, tolerance=0.1).adapt_tasks(counted, {"x": torch.zeros(2).double()}, bowls)
    assert len(evaluated) == 16
    assert found.losses.shape == (TASKS, 100)
    assert torch.equal(found.losses[:, 15:], found.losses[:, 15:16].expand(TASKS, 85))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_steps_give_the_start(start, tasks, name):
    loop = InnerLoop(0, optimizer=name, proximal=1.0, tolerance=0.1)
    alone, together = loop.adapt(loss, start, task(tasks, 0)), loop.adapt_tasks(loss, start, tasks)
    assert alone.losses.shape == (0,)
    assert together.losses.shape == (TASKS, 0)
    for key, value in start.items():
        assert torch.equal(alone.parameters[key], value)
        assert torch.equal(together.parameters[key], value.expand(TASKS, *value.shape))


def test_the_start_is_left_as_it_was_and_nothing_is_kept_of_a_run(start, tasks):
    copies = {key: value.clone() for key, value in start.items()}
    loop = InnerLoop(5, 0.1, "adam")
    first, second = loop.adapt_tasks(loss, start, tasks), loop.adapt_tasks(loss, start, tasks)
    for key, value in start.items():
        assert torch.equal(value, copies[key])
        assert torch.equal(first.parameters[key], second.parameters[key])


def test_adam_can_be_differentiated_where_a_gradient_is_zero(start, tasks):
    start["flat"] = torch.zeros(2).double()
    loop = InnerLoop(3, 0.1, "adam")

    def value(parameters, data):
        return loss(parameters, data) + parameters["flat"].pow(4).sum()

    gradients = grad(lambda p: value(loop.adapt(value, p, task(tasks, 0)).parameters, task(tasks, 1)))(start)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert not gradients["flat"].any()
    assert gradients["first"].any()


@pytest.mark.parametrize("value", [{"steps": -1}, {"lr": 0.0}, {"lr": -0.1}, {"proximal": -1.0}, {"tolerance": -1e-3}])
def test_values_out_of_range_are_refused(value):
    name, number = next(iter(value.items()))
    with pytest.raises(ValueError, match=f"must be 0 or more, and lr above 0, got .*{name}={re.escape(str(number))}"):
        InnerLoop(**value)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="'lbfgs' is not a valid InnerOptimizer"):
        InnerLoop(optimizer="lbfgs")


def test_steps_of_sgd_that_diverge_from_the_start_are_refused():
    message = "lr 0.5 with a proximal weight of 4.0 move away .* must be below 2. Take an lr below 0.5, or Adam"
    with pytest.raises(ValueError, match=message):
        InnerLoop(lr=0.5, proximal=4.0)
    assert InnerLoop(lr=0.49, proximal=4.0).optimizer is InnerOptimizer.SGD
    assert InnerLoop(lr=0.5, proximal=4.0, optimizer="adam").optimizer is InnerOptimizer.ADAM
