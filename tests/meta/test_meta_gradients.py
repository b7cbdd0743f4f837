# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Meta-gradients against closed forms, loops unrolled by hand, dense Hessians and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian
from torch.func import functional_call

from monai_fewshot.meta import MAML, ImplicitMAML, InnerLoop, Reptile

TASKS, SIZE = 3, 5
RATES = {
    "none": {},
    "element-wise": {"x": torch.linspace(0.2, 1.5, SIZE).double(), "y": torch.linspace(1, 2, 4).double().view(2, 2)},
    "scalar": {"x": torch.tensor(0.7).double(), "y": torch.tensor(1.3).double()},
    "broadcast": {"y": torch.tensor([[0.5], [2.0]]).double()},
}
MAMLS = {
    "second order": (False, InnerLoop(4, 0.1)),
    "second order, proximal": (False, InnerLoop(4, 0.1, proximal=1.5)),
    "first order": (True, InnerLoop(4, 0.1)),
    "first order, proximal": (True, InnerLoop(4, 0.1, proximal=1.5)),
    "second order, adam": (False, InnerLoop(4, 0.1, "adam", 1.5)),
}
NETWORK = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 1, 3, padding=1)).double()


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def task(data, index):
    return {name: values[index] for name, values in data.items()}


def flat(tree, index=slice(None)):
    return torch.cat([tensor[index].flatten() for tensor in tree.values()])


def unflat(vector, tree):
    parts = vector.split([tensor.numel() for tensor in tree.values()])
    return {name: part.view_as(tensor) for part, (name, tensor) in zip(parts, tree.items(), strict=True)}


def quadratic(parameters, data):
    return data["matrix"] @ parameters["x"] @ parameters["x"] / 2 - data["vector"] @ parameters["x"]


@pytest.fixture
def quadratics():
    """Start, support and query."""
    roots = normal(2, TASKS, SIZE, SIZE, seed=1)
    matrices, vectors = roots @ roots.mT / 2 + 0.1 * torch.eye(SIZE), normal(2, TASKS, SIZE, seed=2)
    support, query = ({"matrix": matrices[i], "vector": vectors[i]} for i in range(2))
    return {"x": normal(SIZE)}, support, query


def curved(parameters, data):
    """Of two parameters that act on each other."""
    values = torch.tanh(data["inputs"] @ parameters["x"])[:, None] * parameters["y"].flatten()
    return (values - data["targets"]).square().sum(1).mean() + 0.1 * parameters["y"].pow(4).sum()


@pytest.fixture
def curves():
    inputs, targets = normal(2, TASKS, 6, SIZE, seed=3), normal(2, TASKS, 6, 4, seed=4)
    support, query = ({"inputs": inputs[i], "targets": targets[i]} for i in range(2))
    return {"x": normal(SIZE, seed=5), "y": normal(2, 2, seed=6)}, support, query


def segmentation(parameters, data):
    logits = functional_call(NETWORK, parameters, (data["image"],))
    return nn.functional.binary_cross_entropy_with_logits(logits, data["label"])


@pytest.fixture
def images():
    image, generator = normal(2, TASKS, 2, 1, 6, 6, seed=7), torch.Generator().manual_seed(8)
    label = (image + 0.5 * normal(*image.shape, seed=9) > 0).double()
    start = {name: torch.randn(p.shape, generator=generator).double() / 2 for name, p in NETWORK.named_parameters()}
    assert flat(start).numel() == 58
    support, query = ({"image": image[i], "label": label[i]} for i in range(2))
    return start, support, query


def unrolled(loss, start, near, far, inner, first_order, rates):
    """Gradients of the query's loss after steps written out, of theta and of the rates, and that loss."""
    theta = {name: p.clone().requires_grad_() for name, p in start.items()}
    factors = {name: r.clone().requires_grad_() for name, r in rates.items()}
    point, first, second = dict(theta), dict.fromkeys(theta, 0.0), dict.fromkeys(theta, 0.0)
    for step in range(1, inner.steps + 1):
        value = loss(point, near)
        for name, p in point.items():
            value = value + inner.proximal / 2 * (p - theta[name]).pow(2).sum()
        gradients = torch.autograd.grad(value, list(point.values()), create_graph=not first_order)
        moved = {}
        for (name, p), gradient in zip(point.items(), gradients, strict=True):
            if inner.optimizer == "adam":
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient.square()
                gradient = first[name] / (1 - 0.9**step) / ((second[name] / (1 - 0.999**step)).sqrt() + 1e-8)
            moved[name] = p - inner.lr * factors.get(name, 1.0) * gradient
        point = moved
    value = loss(point, far)
    gradients = torch.autograd.grad(value, [*theta.values(), *factors.values()])
    return gradients[: len(theta)], gradients[len(theta) :], value.detach()


def assert_unrolled(method, loss, start, support, query, rates, rtol=1e-9):
    found = method(loss, start, support, query, rates)
    of_tasks = [
        unrolled(loss, start, task(support, i), task(query, i), method.inner, method.first_order, rates)
        for i in range(TASKS)
    ]
    for group, of_group in ((found.parameters, 0), (found.rates, 1)):
        for index, gradient in enumerate(group.values()):
            expected = torch.stack([of_task[of_group][index] for of_task in of_tasks]).mean(0)
            torch.testing.assert_close(gradient, expected, rtol=rtol, atol=rtol * 1e-2)
    assert list(found.parameters) == list(start)
    assert list(found.rates) == list(rates)
    torch.testing.assert_close(found.query_loss, torch.stack([of_task[2] for of_task in of_tasks]))
    assert found.sound.all()


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("name", MAMLS)
def test_maml_is_the_gradient_through_steps_written_out(curves, name, rates):
    first_order, inner = MAMLS[name]
    tolerance = 1e-5 if inner.optimizer == "adam" else 1e-9
    assert_unrolled(MAML(inner, first_order=first_order), curved, *curves, RATES[rates], tolerance)


@pytest.mark.parametrize("first_order", [False, True])
def test_maml_of_a_network_is_the_gradient_through_steps_written_out(images, first_order):
    assert_unrolled(MAML(InnerLoop(3, 0.2), first_order=first_order), segmentation, *images, {})


def test_maml_without_steps_is_the_gradient_of_the_query(curves):
    for first_order in (False, True):
        assert_unrolled(MAML(InnerLoop(0), first_order=first_order), curved, *curves, {})


@pytest.mark.parametrize("proximal", [0.5, 4.0])
def test_implicit_maml_of_quadratic_tasks_is_the_closed_form(quadratics, proximal):
    r"""phi = (A + lambda I)^-1 (b + lambda theta), and the gradient is (I + A / lambda)^-1 of the query's."""
    start, support, query = quadratics
    method = ImplicitMAML(InnerLoop(5000, 0.1, proximal=proximal, tolerance=1e-11), max_steps=20, tolerance=1e-12)
    found = method.task_gradients(quadratic, start, support, query, {})
    step = method(quadratic, start, support, query)
    identity, expected = torch.eye(SIZE).double(), []
    for index in range(TASKS):
        matrix, vector = support["matrix"][index], support["vector"][index]
        solution = torch.linalg.solve(matrix + proximal * identity, vector + proximal * start["x"])
        outer = query["matrix"][index] @ solution - query["vector"][index]
        expected.append(torch.linalg.solve(identity + matrix / proximal, outer))
        assert (found.parameters["x"][index] - expected[-1]).norm() < 1e-6 * expected[-1].norm()
        torch.testing.assert_close(found.query_loss[index], quadratic({"x": solution}, task(query, index)))
    torch.testing.assert_close(step.parameters["x"], torch.stack(expected).mean(0), rtol=1e-7, atol=1e-9)
    assert found.diagnostics["cg_converged"].all()
    assert (found.diagnostics["inner_gradient_norm"] < 1e-11).all()


def test_implicit_maml_without_steps_has_its_hessian_where_it_starts(quadratics):
    start, support, query = quadratics
    found = ImplicitMAML(InnerLoop(0, proximal=2.0), max_steps=10, tolerance=1e-12)(quadratic, *quadratics)
    outer = (query["matrix"] @ start["x"] - query["vector"])[..., None]
    expected = torch.linalg.solve(torch.eye(SIZE).double() + support["matrix"] / 2, outer).mean(0).flatten()
    torch.testing.assert_close(found.parameters["x"], expected, rtol=1e-9, atol=1e-12)


@pytest.fixture
def implicit():
    inner = InnerLoop(3000, 0.4, proximal=1.5, tolerance=1e-12)
    return ImplicitMAML(inner, max_steps=80, tolerance=1e-12)


def test_implicit_maml_of_a_network_is_the_solution_with_its_dense_hessian(images, implicit):
    start, support, query = images
    found = implicit.task_gradients(segmentation, start, support, query, {})
    assert found.diagnostics["cg_converged"].all()
    adapted = implicit.inner.adapt_tasks(segmentation, start, support)
    assert (adapted.gradient_norm < 1e-12).all()
    for index in range(TASKS):
        point = flat(adapted.parameters, index).requires_grad_()
        curvature = hessian(lambda p, i=index: segmentation(unflat(p, start), task(support, i)), point)
        (outer,) = torch.autograd.grad(segmentation(unflat(point, start), task(query, index)), point)
        expected = torch.linalg.solve(torch.eye(len(point)).double() + curvature / 1.5, outer)
        torch.testing.assert_close(flat(found.parameters, index), expected, rtol=1e-8, atol=1e-10)
        assert (expected - outer).norm() > 1e-2 * outer.norm()


def test_implicit_maml_of_a_network_is_the_slope_of_what_is_solved_again_from_another_start(images, implicit):
    start, support, query = images
    gradient = flat(implicit(segmentation, start, support, query).parameters)
    for seed in (20, 21, 22):
        direction, reach = normal(len(gradient), seed=seed), 1e-4
        values = []
        for sign in (1, -1):
            moved = unflat(flat(start) + sign * reach * direction, start)
            values.append(implicit(segmentation, moved, support, query).query_loss.mean())
        slope = (values[0] - values[1]) / (2 * reach)
        torch.testing.assert_close(gradient @ direction, slope, rtol=1e-6, atol=1e-9)


def test_reptile_is_the_way_back_from_steps_written_out(curves):
    start, support, query = curves
    found = Reptile(InnerLoop(6, 0.1, proximal=0.5)).task_gradients(curved, start, support, query, {})
    for index in range(TASKS):
        point = {name: p.clone().requires_grad_() for name, p in start.items()}
        for _ in range(6):
            value = sum(curved(point, task(data, index)) for data in (support, query)) / 2
            gradients = torch.autograd.grad(value, list(point.values()))
            with torch.no_grad():
                for (name, p), gradient in zip(point.items(), gradients, strict=True):
                    p -= 0.1 * (gradient + 0.5 * (p - start[name]))
        for name, p in point.items():
            expected = (start[name] - p).detach()
            torch.testing.assert_close(found.parameters[name][index], expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.query_loss[index], curved(point, task(query, index)).detach())
