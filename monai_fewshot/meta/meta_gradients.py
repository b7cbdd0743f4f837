# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch.utils._pytree import tree_leaves, tree_map

from .inner_loop import InnerLoop, Loss, Parameters

__all__ = ["MetaGradient", "MetaStep", "TaskGradients"]

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


def _finite_tasks(gradients: TaskGradients) -> torch.Tensor:
    groups = (gradients.parameters, gradients.rates, gradients.diagnostics)
    tensors = [gradients.query_loss, gradients.inner_losses, *(tensor for group in groups for tensor in group.values())]
    finite = [tensor.unsqueeze(-1).flatten(1).isfinite().all(1) for tensor in tensors]
    return torch.stack(finite).all(0)
