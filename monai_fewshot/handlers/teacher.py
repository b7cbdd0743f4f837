# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
from typing import Any

import torch
from ignite.engine import Engine, Events

__all__ = ["Teacher"]


class Teacher:
    """Keep the moving average of a network's weights, which labels what the network learns from.

    ``ignite.handlers.EMAHandler`` keeps one too, but its warm-up begins again in a resumed training. Early in a
    training the average is over all steps so far. Buffers are copied.

    Based on: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017,
    https://arxiv.org/abs/1703.01780.

    Args:
        network: the student.
        momentum: weight of each step's weights in the average, above 0 and at most 1.

    Attributes:
        network: the teacher, in evaluation mode; it has no gradients.

    Raises:
        ValueError: where the momentum is out of its range.

    Example:
        >>> teacher = Teacher(torch.nn.Linear(2, 1), momentum=0.01)
        >>> teacher.network.weight.requires_grad
        False
    """

    def __init__(self, network: torch.nn.Module, momentum: float = 0.01) -> None:
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum is {momentum}, must be above 0 and at most 1.")
        self.student = network
        self.momentum = momentum
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    def attach(self, engine: Engine) -> None:
        """Register with the student's trainer.

        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        """Take a step of the student into the average."""
        weight = max(self.momentum, 1 / engine.state.iteration)
        torch._foreach_lerp_(list(self.network.parameters()), list(self.student.parameters()), weight)
        for own, new in zip(self.network.buffers(), self.student.buffers(), strict=True):
            own.copy_(new)

    def state_dict(self) -> dict[str, Any]:
        """The teacher's weights."""
        return self.network.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.network.load_state_dict(state)
