# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

__all__ = ["ConjugateGradientResult", "conjugate_gradients"]


class ConjugateGradientResult(NamedTuple):
    """What conjugate gradients found for each of T systems.

    Attributes:
        solution: (T, P).
        residual: (T,) norm of what is left, relative to that of the right side.
        steps: (T,) number of steps taken.
        converged: (T,) whether the residual is within the tolerance.
        indefinite: (T,) whether a direction of no positive curvature was met, at which the system was left as it stood.
    """

    solution: torch.Tensor
    residual: torch.Tensor
    steps: torch.Tensor
    converged: torch.Tensor
    indefinite: torch.Tensor


@torch.no_grad()
def conjugate_gradients(
    operator: Callable[[torch.Tensor], torch.Tensor],
    target: torch.Tensor,
    max_steps: int,
    tolerance: float = 1e-10,
) -> ConjugateGradientResult:
    """Solve A x = b for several symmetric positive definite A at once, each known by its products with vectors.

    Starts at 0. A system that has converged, or turns out not to be positive definite, stays as it is while the others
    go on. ``monai.networks.layers.ConjugateGradient`` does one system and does not say whether it has converged.

    Based on: Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems", 1952.

    Args:
        operator: maps T vectors (T, P) to their products (T, P).
        target: right sides b, (T, P).
        max_steps: most products to take, 0 or more; without rounding errors P are enough.
        tolerance: of the norm of b - A x, relative to that of b.

    Returns:
        The solutions and how far they can be trusted.

    Example:
        >>> matrix = torch.tensor([[4.0, 1.0], [1.0, 3.0]])
        >>> conjugate_gradients(lambda x: x @ matrix, torch.tensor([[1.0, 2.0]]), 2, 1e-6).solution
        tensor([[0.0909, 0.6364]])
    """
    scale = target.norm(dim=1)
    solution, remainder, direction = torch.zeros_like(target), target, target
    squared = remainder.square().sum(1)
    steps = torch.zeros_like(scale, dtype=torch.int64)
    indefinite = torch.zeros_like(scale, dtype=torch.bool)
    for _ in range(max_steps):
        active = (squared.sqrt() > tolerance * scale) & ~indefinite
        if not active.any():
            break
        product = operator(direction)
        curvature = (direction * product).sum(1)
        indefinite |= active & (curvature <= 0)
        active &= curvature > 0
        length = torch.where(active, squared / curvature, 0.0).unsqueeze(1)
        solution = solution + length * direction
        remainder = remainder - length * product
        former, squared = squared, remainder.square().sum(1)
        direction = remainder + torch.where(active, squared / former, 0.0).unsqueeze(1) * direction
        steps += active
    residual = torch.where(scale > 0, squared.sqrt() / scale, squared.sqrt())
    return ConjugateGradientResult(solution, residual, steps, residual <= tolerance, indefinite)
