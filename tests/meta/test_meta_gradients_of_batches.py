# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Meta-gradients of several tasks: some at a time, apart from each other, with tasks that fail, and without memory."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

from monai_fewshot.meta import MAML, ImplicitMAML, InnerLoop, Reptile

TASKS, SIZE = 5, 4
RATES = {"x": torch.linspace(0.5, 1.5, SIZE).double(), "y": torch.tensor(0.8).double()}
METHODS = {
    "maml": lambda: MAML(InnerLoop(3, 0.2)),
    "maml, first order": lambda: MAML(InnerLoop(3, 0.2, proximal=1.0), first_order=True),
    "maml, tolerance": lambda: MAML(InnerLoop(8, 0.2, tolerance=0.3)),
    "reptile": lambda: Reptile(InnerLoop(3, 0.2)),
    "reptile, tolerance": lambda: Reptile(InnerLoop(60, 0.2, "adam", 1.0, tolerance=0.05)),
    "implicit": lambda: ImplicitMAML(InnerLoop(60, 0.2, proximal=1.0)),
    "implicit, tolerance": lambda: ImplicitMAML(InnerLoop(60, 0.2, proximal=1.0, tolerance=1e-2), max_steps=2),
}
every_method = pytest.mark.parametrize("name", METHODS)


def loss(parameters, data):
    return (torch.tanh(data["inputs"] @ parameters["x"]) * parameters["y"] - data["targets"]).square().mean()


def compute(method, start, support, query):
    return method(loss, start, support, query, RATES if method.learns_rates else None)


def of_tasks(method, start, support, query):
    return method.task_gradients(loss, start, support, query, RATES if method.learns_rates else {})


def assert_same(found, expected, **tolerances):
    tree_map(lambda one, other: torch.testing.assert_close(one, other, equal_nan=True, **tolerances), found, expected)


@pytest.fixture
def batch():
    """Start, support and query; a parameter and a rate have no dimension."""
    generator = torch.Generator().manual_seed(0)
    inputs, targets, x = (
        torch.randn(shape, generator=generator).double() for shape in ((2, TASKS, 6, SIZE), (2, TASKS, 6), (SIZE,))
    )
    support, query = ({"inputs": inputs[i], "targets": targets[i]} for i in range(2))
    return {"x": x, "y": torch.tensor(1.2).double()}, support, query


@pytest.mark.parametrize("at_once", [1, 2, 3, TASKS, 100])
@every_method
def test_tasks_some_at_a_time_give_what_all_give_at_once(batch, name, at_once):
    method = METHODS[name]()
    expected = compute(method, *batch)
    method.tasks_at_once = at_once
    assert_same(compute(method, *batch), expected, rtol=1e-11, atol=1e-13)
    assert method.tasks_at_once == at_once


@pytest.mark.parametrize("bad", [None, torch.nan, torch.inf])
@every_method
def test_a_task_says_the_same_whatever_others_are(batch, name, bad):
    method, others = METHODS[name](), [0, 1, 3, 4]
    expected = of_tasks(method, *batch)
    for data in batch[1:]:
        data["targets"][2] = 5 - data["targets"][2] if bad is None else bad
    found = of_tasks(method, *batch)
    kept, before = (tree_map(lambda tensor: tensor[others], gradients) for gradients in (found, expected))
    assert_same(kept, before, rtol=1e-12, atol=1e-14)
    assert not torch.equal(found.query_loss[2], expected.query_loss[2])


@pytest.mark.parametrize("role", ["support", "query"])
@pytest.mark.parametrize("at_once", [None, 2])
@every_method
def test_a_task_that_is_not_finite_is_left_out(batch, name, at_once, role):
    method, others = METHODS[name](), [0, 2, 3]
    start, support, query = batch
    expected = compute(method, start, *(tree_map(lambda x: x[others], data) for data in (support, query)))
    disturbed = support if role == "support" else query
    disturbed["targets"][1], disturbed["targets"][4, 0] = torch.nan, torch.inf
    method.tasks_at_once = at_once
    found = compute(method, start, support, query)
    assert found.sound.tolist() == [True, False, True, True, False]
    assert_same((found.parameters, found.rates), (expected.parameters, expected.rates), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(found.query_loss[others], expected.query_loss)


@every_method
def test_gradients_are_zero_where_no_task_is_sound(batch, name):
    start, support, query = batch
    support["targets"][:] = torch.nan
    found = compute(METHODS[name](), start, support, query)
    assert not found.sound.any()
    for group in (found.parameters, found.rates):
        assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in group.values())
    assert found.parameters.keys() == start.keys()


def power(parameters, data):
    """With a gradient of 0, but no second derivative where parameters are at the center."""
    return (parameters["x"] - data["center"]).abs().pow(1.5).sum()


@pytest.mark.parametrize("max_steps", [1, 5])
def test_a_task_whose_hessian_is_not_finite_is_left_out(max_steps):
    start, method = {"x": torch.ones(2).double()}, ImplicitMAML(InnerLoop(2, 0.1, proximal=1.0), max_steps=max_steps)
    support = {"center": torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 3.0]]).double()}
    query = {"center": torch.zeros(3, 2).double()}
    found = method(power, start, support, query)
    assert found.query_loss.isfinite().all()
    assert found.sound.tolist() == [True, False, True]
    sound = method(power, start, *({"center": data["center"][[0, 2]]} for data in (support, query)))
    torch.testing.assert_close(found.parameters, sound.parameters)


@pytest.mark.parametrize(
    ("curvature", "why"),
    [((3.0, 3.0), None), ((-3.0, -3.0), "negative at once"), ((3.0, -3.0), "negative later"), ((-0.9, 9.0), "remote")],
)
def test_a_task_whose_system_cannot_be_solved_takes_the_gradient_of_the_query(curvature, why):
    def bowl(parameters, data):
        return (data["curvature"] / 2 * parameters["x"].square()).sum()

    method = ImplicitMAML(InnerLoop(1, 0.1, proximal=1.0), max_steps=1 if why == "remote" else 5)
    data = {"curvature": torch.tensor([curvature])}
    found = method.task_gradients(bowl, {"x": torch.tensor([1.0, 0.5])}, data, {"curvature": torch.ones(1, 2)}, {})
    adapted = torch.tensor([1.0, 0.5]) * (1 - 0.1 * torch.tensor(curvature))
    expected = adapted if why else adapted / (1 + torch.tensor(curvature))
    torch.testing.assert_close(found.parameters["x"][0], expected)
    assert found.diagnostics["cg_rejected"].tolist() == [why is not None]
    assert found.diagnostics["cg_converged"].tolist() == [why is None]


def limit_memory(monkeypatch, method, most):
    """Let a method process at most so many tasks at once; returns how many were tried, by call."""
    tried, original = [], type(method).task_gradients

    def limited(self, loss, parameters, support, query, rates):
        tried.append(len(support["targets"]))
        if tried[-1] > most:
            raise torch.OutOfMemoryError("no memory")
        return original(self, loss, parameters, support, query, rates)

    monkeypatch.setattr(type(method), "task_gradients", limited)
    return tried


@every_method
def test_half_as_many_tasks_are_tried_where_memory_is_short(batch, name, monkeypatch, caplog):
    method = METHODS[name]()
    expected = compute(method, *batch)
    tried = limit_memory(monkeypatch, method, 2)
    with caplog.at_level(logging.WARNING):
        found = compute(method, *batch)
    assert_same(found, expected, rtol=1e-11, atol=1e-13)
    assert tried == [5, 3, 2, 2, 1]
    assert method.tasks_at_once == 2
    assert [record.getMessage() for record in caplog.records] == [
        "No memory for 5 tasks at once, going on with 3.",
        "No memory for 3 tasks at once, going on with 2.",
    ]
    tried.clear()
    compute(method, *batch)
    assert tried == [2, 2, 1]


def test_too_little_memory_for_one_task_is_raised(batch, monkeypatch):
    method = MAML(InnerLoop(1, 0.1))
    tried = limit_memory(monkeypatch, method, 0)
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        compute(method, *batch)
    assert tried == [5, 3, 2, 1]


@every_method
def test_parameters_that_need_gradients_get_none_and_are_left_as_they_were(batch, name):
    start, support, query = batch
    expected = compute(METHODS[name](), start, support, query)
    parameters = {key: nn.Parameter(value.clone()) for key, value in start.items()}
    with torch.no_grad():
        found = compute(METHODS[name](), parameters, support, query)
    assert_same(found, expected, rtol=0.0, atol=0.0)
    for key, value in start.items():
        assert parameters[key].grad is None
        assert torch.equal(parameters[key].detach(), value)
        assert not found.parameters[key].requires_grad


def test_implicit_maml_needs_a_proximal_term_and_a_step():
    for kind, inner in ((MAML, InnerLoop()), (ImplicitMAML, InnerLoop(proximal=1.0))):
        with pytest.raises(ValueError, match="tasks_at_once is -1, must be 1 or more, or None for all"):
            kind(inner, tasks_at_once=-1)
    with pytest.raises(ValueError, match=r"ImplicitMAML needs an inner loop with a proximal term: .* such as 2"):
        ImplicitMAML(InnerLoop())
    for values in ({"max_steps": 0}, {"tolerance": -1.0}):
        with pytest.raises(ValueError, match="max_steps must be 1 or more, and tolerance 0 or more, got "):
            ImplicitMAML(InnerLoop(proximal=2.0), **values)


@pytest.mark.parametrize("method", [Reptile, ImplicitMAML])
def test_methods_whose_gradient_knows_no_rates_refuse_them(batch, method):
    with pytest.raises(ValueError, match=f"{method.__name__} cannot learn inner rates: its gradient does not depend"):
        method(InnerLoop(proximal=2.0))(loss, *batch, RATES)
