# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.func import vmap

from .inner_loop import Loss, Parameters
from .meta_gradients import MetaGradient, TaskGradients

__all__ = ["Reptile"]


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
