# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.func import vmap
from torch.utils._pytree import tree_leaves

from .inner_loop import Loss, Parameters
from .meta_gradients import MetaGradient, TaskGradients

__all__ = ["MAML"]


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


def _repeated(tensor: torch.Tensor, tasks: int, dims: int) -> torch.Tensor:
    """Copy a tensor for each task, with as many further dimensions as asked for."""
    return tensor[(None,) * (dims - tensor.ndim)].expand(tasks, *[-1] * dims).clone()
