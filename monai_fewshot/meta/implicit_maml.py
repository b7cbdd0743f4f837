# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.func import grad, grad_and_value, jvp, vmap

from .conjugate_gradients import conjugate_gradients
from .inner_loop import Loss, Parameters
from .meta_gradients import MetaGradient, TaskGradients

__all__ = ["ImplicitMAML"]


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


def _flat(tree: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.unsqueeze(-1).flatten(1) for tensor in tree.values()], dim=1)


def _like(vectors: torch.Tensor, tree: Mapping[str, torch.Tensor]) -> Parameters:
    parts = vectors.split([tensor[0].numel() for tensor in tree.values()], dim=1)
    return {name: part.view_as(tensor) for part, (name, tensor) in zip(parts, tree.items(), strict=True)}
