# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from monai.utils import StrEnum
from torch.func import grad_and_value, vmap

__all__ = ["Adaptation", "InnerLoop", "InnerOptimizer", "Loss", "Parameters"]

Parameters: TypeAlias = dict[str, torch.Tensor]
"""Tensors by name; those of several tasks have the task as their first dimension."""

Loss: TypeAlias = Callable[[Parameters, Any], torch.Tensor]
"""Maps parameters and a task's data, a tree of tensors, to a scalar."""

BETAS, EPSILON = (0.9, 0.999), 1e-8


class InnerOptimizer(StrEnum):
    """How a step is made of a gradient: ``SGD`` goes along it, ``ADAM`` scales each element by its history."""

    SGD = "sgd"
    ADAM = "adam"


class Adaptation(NamedTuple):
    """What an inner loop has made of a task, or of T tasks.

    Attributes:
        parameters: adapted parameters; with a first dimension T for T tasks.
        losses: inner objective before each step, (S,) or (T, S).
        gradient_norm: norm of the inner objective's gradient before the last step, () or (T,).
    """

    parameters: Parameters
    losses: torch.Tensor
    gradient_norm: torch.Tensor


@dataclass(frozen=True)
class InnerLoop:
    r"""Adaptation of parameters to a task by a few gradient steps from a common start.

    .. math::
        \phi \approx \operatorname{argmin}_\phi L(\phi) + \frac{\lambda}{2} \lVert \phi - \theta \rVert^2

    It is a function of (parameters, data): nothing is stored, so that it can be differentiated, and several tasks can
    be adapted at once.

    Based on: Finn et al., "Model-Agnostic Meta-Learning", ICML 2017, equation 1, https://arxiv.org/abs/1703.03400;
    Rajeswaran et al., "Meta-Learning with Implicit Gradients", NeurIPS 2019, equation 3,
    https://arxiv.org/abs/1909.04630.

    Deviation: Adam's epsilon is within the root, which could not be differentiated where a gradient is 0 otherwise.

    Attributes:
        steps: number of steps, or most of them where there is a tolerance; 0 for none.
        lr: length of a step. With a proximal term, plain SGD needs ``lr * proximal < 2`` to be stable.
        optimizer: ``"sgd"`` or ``"adam"``.
        proximal: lambda, how strongly parameters are held to where they start.
        tolerance: a task whose gradient has at most this norm takes no further step; 0 for all steps.

    Raises:
        ValueError: where a value is out of its range.

    Example:
        >>> loop = InnerLoop(steps=1, lr=0.25)
        >>> loop.adapt(lambda p, target: (p["x"] - target) ** 2, {"x": torch.tensor(0.0)}, torch.tensor(2.0)).parameters
        {'x': tensor(1.)}
    """

    steps: int = 5
    lr: float = 0.01
    optimizer: InnerOptimizer | str = InnerOptimizer.SGD
    proximal: float = 0.0
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "optimizer", InnerOptimizer(self.optimizer))
        if self.steps < 0 or self.lr <= 0 or self.proximal < 0 or self.tolerance < 0:
            raise ValueError(f"steps, proximal and tolerance must be 0 or more, and lr above 0, got {self}.")
        if self.optimizer == InnerOptimizer.SGD and self.lr * self.proximal >= 2:
            raise ValueError(
                f"Inner steps of lr {self.lr} with a proximal weight of {self.proximal} move away from the solution: "
                f"their product must be below 2. Take an lr below {2 / self.proximal:g}, or Adam."
            )

    def adapt(
        self,
        loss: Loss,
        start: Parameters,
        data: Any,
        rates: Mapping[str, torch.Tensor] | None = None,
        first_order: bool = False,
    ) -> Adaptation:
        """Adapt to one task, in a way that ``torch.func`` can transform.

        Args:
            loss: of parameters on the task's data.
            start: parameters theta.
            data: of the task.
            rates: factors of ``lr`` for each parameter, of its shape or one that broadcasts to it.
            first_order: whether gradients are constants when the result is differentiated.

        Returns:
            Adapted parameters.
        """

        def seen(point: Parameters) -> Parameters:
            return {name: p.detach() for name, p in point.items()} if first_order else point

        gradient = grad_and_value(self.objective(loss, seen(start), data))

        def evaluate(point: Parameters) -> tuple[Parameters, torch.Tensor]:
            return gradient(seen(point))

        return self._run(evaluate, start, rates or {}, next(iter(start.values())).new_ones((), dtype=torch.bool), False)

    def adapt_tasks(
        self, loss: Loss, start: Parameters, data: Any, rates: Mapping[str, torch.Tensor] | None = None
    ) -> Adaptation:
        """Adapt to T tasks at once; stops early when all are within the tolerance. It cannot be differentiated.

        Args:
            loss: of parameters on one task's data.
            start: parameters theta, the same for all tasks.
            data: tree of tensors whose first dimension is the task.
            rates: see :meth:`adapt`.

        Returns:
            Adapted parameters of each task.
        """
        tasks = len(torch.utils._pytree.tree_leaves(data)[0])
        gradient = vmap(lambda point, task: grad_and_value(self.objective(loss, start, task))(point))
        stacked = {name: p.detach().expand(tasks, *p.shape).clone() for name, p in start.items()}
        active = next(iter(stacked.values())).new_ones(tasks, dtype=torch.bool)
        with torch.no_grad():
            return self._run(lambda point: gradient(point, data), stacked, rates or {}, active, self.tolerance > 0)

    def unroll(
        self,
        loss: Loss,
        start: Parameters,
        data: Any,
        rates: Mapping[str, torch.Tensor] | None = None,
        first_order: bool = False,
    ) -> Adaptation:
        """Adapt to T tasks at once and keep what autograd needs to differentiate the result.

        The same as :meth:`adapt` under ``vmap``, in less memory: gradients of gradients by ``torch.func`` kept two to
        three times as much of the forward passes.

        Args:
            loss: of parameters on one task's data.
            start: parameters theta of each task, (T, ...) each.
            data: tree of tensors whose first dimension is the task.
            rates: see :meth:`adapt`, of each task, (T, ...) each.
            first_order: whether gradients are constants when the result is differentiated.

        Returns:
            Adapted parameters of each task.
        """
        objectives = vmap(lambda point, origin, task: self.objective(loss, origin, task)(point))

        def constant(point: Parameters) -> tuple[Parameters, torch.Tensor]:
            seen, origin = ({name: p.detach() for name, p in tree.items()} for tree in (point, start))
            return vmap(lambda p, o, task: grad_and_value(self.objective(loss, o, task))(p))(seen, origin, data)

        def differentiable(point: Parameters) -> tuple[Parameters, torch.Tensor]:
            values = objectives(point, start, data)
            gradients = torch.autograd.grad(
                values.sum(), list(point.values()), create_graph=True, materialize_grads=True
            )
            return dict(zip(point, gradients, strict=True)), values

        first = next(iter(start.values()))
        active = first.new_ones(len(first), dtype=torch.bool)
        with torch.enable_grad():
            return self._run(constant if first_order else differentiable, start, rates or {}, active, False)

    def objective(self, loss: Loss, start: Parameters, data: Any) -> Callable[[Parameters], torch.Tensor]:
        """Make the inner objective of one task: its loss and the proximal term.

        Args:
            loss: of parameters on the task's data.
            start: parameters theta.
            data: of the task.

        Returns:
            A function of parameters.
        """

        def value(point: Parameters) -> torch.Tensor:
            if self.proximal == 0:
                return loss(point, data)
            distance = sum(((p - start[name]) ** 2).sum() for name, p in point.items())
            return loss(point, data) + self.proximal / 2 * distance

        return value

    def _run(
        self,
        gradient: Callable[[Parameters], tuple[Parameters, torch.Tensor]],
        point: Parameters,
        rates: Mapping[str, torch.Tensor],
        active: torch.Tensor,
        may_stop: bool,
    ) -> Adaptation:
        """Take the steps; ``active`` () or (T,) says which tasks still move."""
        moments: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        losses: list[torch.Tensor] = []
        norm = torch.zeros_like(active, dtype=next(iter(point.values())).dtype)
        for step in range(1, self.steps + 1):
            gradients, value = gradient(point)
            losses.append(value)
            norm = sum(g.square().unsqueeze(-1).flatten(active.ndim).sum(-1) for g in gradients.values()).sqrt()  # type: ignore[union-attr]
            if self.tolerance > 0:
                active = active & (norm > self.tolerance)
                if may_stop and not active.any():
                    losses += [value] * (self.steps - step)
                    break
            point = {
                name: p - self._masked(active, self._step(name, gradients[name], moments, step) * rates.get(name, 1.0))
                for name, p in point.items()
            }
        stacked = torch.stack(losses, dim=-1) if losses else norm.new_zeros((*active.shape, 0))
        return Adaptation(point, stacked, norm)

    def _masked(self, active: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
        if self.tolerance == 0:
            return update
        return torch.where(active.view((*active.shape, *[1] * (update.ndim - active.ndim))), update, 0.0)

    def _step(
        self, name: str, gradient: torch.Tensor, moments: dict[str, tuple[torch.Tensor, torch.Tensor]], step: int
    ) -> torch.Tensor:
        if self.optimizer == InnerOptimizer.SGD:
            return self.lr * gradient
        zero = torch.zeros_like(gradient)
        first, second = (
            beta * old + (1 - beta) * new
            for beta, old, new in zip(BETAS, moments.get(name, (zero, zero)), (gradient, gradient**2), strict=True)
        )
        moments[name] = (first, second)
        first, second = (moment / (1 - beta**step) for beta, moment in zip(BETAS, (first, second), strict=True))
        return self.lr * first / (second + EPSILON**2).sqrt()
