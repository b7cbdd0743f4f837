# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch.func import grad, grad_and_value, jvp, vmap
from torch.utils._pytree import tree_leaves, tree_map

from .conjugate_gradients import conjugate_gradients
from .inner_loop import InnerLoop, Loss, Parameters

__all__ = ["MAML", "ImplicitMAML", "MetaGradient", "MetaStep", "Reptile", "TaskGradients"]

logger = logging.getLogger(__name__)


class TaskGradients(NamedTuple):
    """What T tasks say about the initial parameters.

    Attributes:
        parameters: meta-gradient of each task, (T, ...) each.
        rates: of the factors of the inner rates, (T, ...) each; empty where they are not learned.
        query_loss: (T,) loss of the adapted parameters on the query.
        inner_losses: (T, S) inner objective before each step.
        diagnostics: further figures of each task, (T,) by name.
    """

    parameters: Parameters
    rates: Parameters
    query_loss: torch.Tensor
    inner_losses: torch.Tensor
    diagnostics: dict[str, torch.Tensor]


class MetaStep(NamedTuple):
    """The mean of what the sound ones of T tasks say; a task with a value that is not finite is not sound.

    Attributes:
        parameters: meta-gradient, by name.
        rates: meta-gradient of the factors of the inner rates, by name.
        sound: (T,) which tasks count. Where none does, gradients are 0.
        query_loss: (T,) loss of the adapted parameters on the query.
        inner_losses: (T, S) inner objective before each step.
        diagnostics: further figures of each task, (T,) by name.
    """

    parameters: Parameters
    rates: Parameters
    sound: torch.Tensor
    query_loss: torch.Tensor
    inner_losses: torch.Tensor
    diagnostics: dict[str, torch.Tensor]


@dataclass
class MetaGradient(ABC):
    """The gradient of what parameters are worth as the start of an adaptation.

    Tasks are independent of each other: each has its own adapted parameters, and nothing is kept between them. They are
    processed at once (``torch.func.vmap``), or some at a time, with the same result.

    Attributes:
        inner: how parameters are adapted to a task.
        tasks_at_once: how many tasks are processed at a time; default all. Where a device has not the memory, half as
            many are tried, until it has, and from then on.
    """

    inner: InnerLoop
    tasks_at_once: int | None = None
    learns_rates: ClassVar[bool] = False
    """Whether factors of the inner rates can be learned."""

    def __post_init__(self) -> None:
        if self.tasks_at_once is not None and self.tasks_at_once < 1:
            raise ValueError(f"tasks_at_once is {self.tasks_at_once}, must be 1 or more, or None for all.")

    def __call__(
        self,
        loss: Loss,
        parameters: Parameters,
        support: Any,
        query: Any,
        rates: Mapping[str, torch.Tensor] | None = None,
    ) -> MetaStep:
        """Compute the meta-gradient of a batch of tasks.

        Args:
            loss: of parameters on one task's support, or query.
            parameters: initial parameters theta, the same for all tasks.
            support: what each task is adapted to, a tree of tensors whose first dimension is the task.
            query: what adapted parameters are judged by, likewise.
            rates: learned factors of the inner rate for each parameter, of its shape or one that broadcasts to it.

        Returns:
            Gradients, averaged over the sound tasks.

        Raises:
            ValueError: where a method that cannot learn rates is given any.
        """
        if rates and not self.learns_rates:
            raise ValueError(f"{type(self).__name__} cannot learn inner rates: its gradient does not depend on them.")
        start = {name: p.detach() for name, p in parameters.items()}
        factors = {name: r.detach() for name, r in (rates or {}).items()}
        tasks = len(tree_leaves(support)[0])
        while True:
            size = min(self.tasks_at_once or tasks, tasks)
            try:
                return self._in_chunks(loss, start, support, query, factors, tasks, size)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                self.tasks_at_once = (size + 1) // 2
                logger.warning("No memory for %d tasks at once, going on with %d.", size, self.tasks_at_once)

    @abstractmethod
    def task_gradients(
        self, loss: Loss, parameters: Parameters, support: Any, query: Any, rates: Parameters
    ) -> TaskGradients:
        """Compute the meta-gradient of each of T tasks; arguments as for a call."""

    def _in_chunks(
        self, loss: Loss, start: Parameters, support: Any, query: Any, rates: Parameters, tasks: int, size: int
    ) -> MetaStep:
        sums = tuple({name: torch.zeros_like(p) for name, p in group.items()} for group in (start, rates))
        chunks, sound = [], []
        for first in range(0, tasks, size):
            supports, queries = (tree_map(lambda x: x[first : first + size], data) for data in (support, query))  # noqa: B023
            gradients = self.task_gradients(loss, start, supports, queries, rates)
            finite = _finite_tasks(gradients)
            for total, group in zip(sums, (gradients.parameters, gradients.rates), strict=True):
                for name, gradient in group.items():
                    is_finite = finite.view(-1, *[1] * (gradient.ndim - 1))
                    total[name] += torch.where(is_finite, gradient, 0.0).sum(0)
            sound.append(finite)
            chunks.append((gradients.query_loss, gradients.inner_losses, gradients.diagnostics))
        all_sound = torch.cat(sound)
        count = all_sound.sum().clamp(min=1)
        parameters, factors = ({name: total / count for name, total in group.items()} for group in sums)
        query_loss, inner_losses, diagnostics = tree_map(lambda *parts: torch.cat(parts), *chunks)
        return MetaStep(parameters, factors, all_sound, query_loss, inner_losses, diagnostics)


@dataclass
class MAML(MetaGradient):
    r"""Gradient of the query's loss through the inner steps.

    .. math::
        \nabla_\theta L_q(\phi_S(\theta)), \quad \phi_0 = \theta, \quad
        \phi_{s+1} = \phi_s - \alpha \nabla L_s(\phi_s)

    Its memory grows with the number of inner steps. First order takes the gradients of the inner steps for constants,
    so that its meta-gradient is that of the query at the adapted parameters.

    Based on: Finn et al., "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017,
    https://arxiv.org/abs/1703.03400; learned rates: Li et al., "Meta-SGD", 2017, https://arxiv.org/abs/1707.09835.

    Attributes:
        first_order: whether second derivatives are left out.
    """

    first_order: bool = False
    learns_rates: ClassVar[bool] = True

    def task_gradients(
        self, loss: Loss, parameters: Parameters, support: Any, query: Any, rates: Parameters
    ) -> TaskGradients:
        """Differentiate through the inner loop."""
        tasks = len(tree_leaves(support)[0])
        start = {name: _repeated(p, tasks, p.ndim).requires_grad_() for name, p in parameters.items()}
        factors = {name: _repeated(r, tasks, parameters[name].ndim).requires_grad_() for name, r in rates.items()}
        with torch.enable_grad():
            adapted = self.inner.unroll(loss, start, support, factors, self.first_order)
            value = vmap(loss)(adapted.parameters, query)
            leaves = [*start.values(), *factors.values()]
            gradients = iter(torch.autograd.grad(value.sum(), leaves, materialize_grads=True))
        of_start = {name: next(gradients) for name in start}
        of_rates = {name: next(gradients).view(tasks, *rates[name].shape) for name in factors}
        return TaskGradients(of_start, of_rates, value.detach(), adapted.losses.detach(), {})


@dataclass
class Reptile(MetaGradient):
    r"""The way back from the adapted parameters, :math:`\theta - \phi`.

    A task's support and query are adapted to together; the query's loss is that of the adapted parameters.

    Based on: Nichol et al., "On First-Order Meta-Learning Algorithms", 2018, https://arxiv.org/abs/1803.02999.
    """

    def task_gradients(
        self, loss: Loss, parameters: Parameters, support: Any, query: Any, rates: Parameters
    ) -> TaskGradients:
        """Adapt and look back."""

        def both(point: Parameters, task: tuple[Any, Any]) -> torch.Tensor:
            return (loss(point, task[0]) + loss(point, task[1])) / 2

        adapted = self.inner.adapt_tasks(both, parameters, (support, query))
        with torch.no_grad():
            value = vmap(loss)(adapted.parameters, query)
        gradients = {name: parameters[name] - p for name, p in adapted.parameters.items()}
        return TaskGradients(gradients, {}, value, adapted.losses, {})


@dataclass
class ImplicitMAML(MetaGradient):
    r"""Gradient of the query's loss at the solution of the inner problem, whichever way was taken there.

    At the solution of :math:`\min_\phi L(\phi) + \frac{\lambda}{2} \lVert \phi - \theta \rVert^2` the gradient is 0, so
    that by the implicit function theorem, with H the Hessian of L there,

    .. math::
        \frac{d \phi}{d \theta} = \left( I + \frac{H}{\lambda} \right)^{-1}, \quad
        \nabla_\theta L_q(\phi) = \left( I + \frac{H}{\lambda} \right)^{-1} \nabla L_q(\phi).

    The system is solved by conjugate gradients with products of H and vectors, forward over reverse, so that memory
    does not grow with the number of inner steps.

    Where the Hessian has curvature below :math:`-\lambda` the inner problem has no solution there, and the system is
    indefinite; close to that, conjugate gradients give steps of any length. A task whose system turns out to be
    indefinite, or whose residual has not become less than that of 0, therefore takes the query's gradient itself, as
    first-order MAML does, and is counted in the diagnostic ``cg_rejected``. If that is many, raise the proximal weight.

    Based on: Rajeswaran et al., "Meta-Learning with Implicit Gradients", NeurIPS 2019, equations 3 and 6,
    https://arxiv.org/abs/1909.04630; Khadka et al., "Meta-learning with implicit gradients in a few-shot setting for
    medical image segmentation", Computers in Biology and Medicine 2022, equation 2, https://arxiv.org/abs/2106.03223.

    Attributes:
        max_steps: most steps of conjugate gradients; 5 in the former's implementation.
        tolerance: of their relative residual.

    Raises:
        ValueError: where the inner loop has no proximal term, or a value is out of its range.
    """

    max_steps: int = 5
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner.proximal <= 0:
            raise ValueError(
                "ImplicitMAML needs an inner loop with a proximal term: without one its solution does not depend on "
                "where it started. Give InnerLoop a proximal weight above 0, such as 2."
            )
        if self.max_steps < 1 or self.tolerance < 0:
            raise ValueError(
                f"max_steps must be 1 or more, and tolerance 0 or more, got {self.max_steps} and {self.tolerance}."
            )

    def task_gradients(
        self, loss: Loss, parameters: Parameters, support: Any, query: Any, rates: Parameters
    ) -> TaskGradients:
        """Adapt, and solve the linear system of each task."""
        adapted = self.inner.adapt_tasks(loss, parameters, support)
        point = adapted.parameters
        outer, value = vmap(grad_and_value(loss))(point, query)

        def curve(at: Parameters, data: Any, vector: Parameters) -> Parameters:
            def slope(where: Parameters) -> Parameters:
                return grad(loss)(where, data)

            return jvp(slope, (at,), (vector,))[1]

        def operator(vectors: torch.Tensor) -> torch.Tensor:
            products = vmap(curve)(point, support, _like(vectors, point))
            return vectors + _flat(products) / self.inner.proximal

        found = conjugate_gradients(operator, _flat(outer), self.max_steps, self.tolerance)
        rejected = found.indefinite | (found.residual >= 1)
        solution = torch.where(rejected[:, None], _flat(outer), found.solution)
        diagnostics = {
            "inner_gradient_norm": adapted.gradient_norm,
            "cg_residual": found.residual,
            "cg_steps": found.steps.to(value.dtype),
            "cg_converged": found.converged.to(value.dtype),
            "cg_rejected": rejected.to(value.dtype),
        }
        return TaskGradients(_like(solution, point), {}, value, adapted.losses, diagnostics)


def _repeated(tensor: torch.Tensor, tasks: int, dims: int) -> torch.Tensor:
    """Copy a tensor for each task, with as many further dimensions as asked for."""
    return tensor[(None,) * (dims - tensor.ndim)].expand(tasks, *[-1] * dims).clone()


def _flat(tree: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.unsqueeze(-1).flatten(1) for tensor in tree.values()], dim=1)


def _like(vectors: torch.Tensor, tree: Mapping[str, torch.Tensor]) -> Parameters:
    parts = vectors.split([tensor[0].numel() for tensor in tree.values()], dim=1)
    return {name: part.view_as(tensor) for part, (name, tensor) in zip(parts, tree.items(), strict=True)}


def _finite_tasks(gradients: TaskGradients) -> torch.Tensor:
    groups = (gradients.parameters, gradients.rates, gradients.diagnostics)
    tensors = [gradients.query_loss, gradients.inner_losses, *(tensor for group in groups for tensor in group.values())]
    finite = [tensor.unsqueeze(-1).flatten(1).isfinite().all(1) for tensor in tensors]
    return torch.stack(finite).all(0)
