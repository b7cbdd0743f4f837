# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

__all__ = ["FiniteLoss"]


class FiniteLoss:
    """Stop a training whose losses are not finite any more, with a diagnosis.

    ``ignite.handlers.TerminateOnNan`` ends a training at the first such loss as if it were complete, and reads every
    loss, which waits for the device; here losses are read every tenth step. In a process group list it behind
    :class:`MeanLossOverProcesses`, so that all processes see the same.

    Args:
        max_failing: losses in a row that may be other than finite.

    Raises:
        RuntimeError: during the run, at most ten steps after one more loss was not finite.
    """

    STEPS_PER_READING = 10

    def __init__(self, max_failing: int = 10) -> None:
        self.max_failing = max_failing
        self.failing: torch.Tensor | int = 0

    def attach(self, engine: Engine) -> None:
        """Register with a trainer that is not decollated.

        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Count the losses in a row that are not finite, and stop where there are too many."""
        loss = torch.as_tensor(engine.state.output[CommonKeys.LOSS]).detach()
        self.failing = torch.where(loss.isfinite().all(), 0, self.failing + 1)
        if engine.state.iteration % self.STEPS_PER_READING == 0 and int(self.failing) > self.max_failing:
            first = engine.state.iteration - int(self.failing) + 1
            raise RuntimeError(
                f"The losses of {int(self.failing)} steps in a row, from step {first} on, are not finite: the training "
                f"has diverged. {self._remedy(first)}"
            )

    @staticmethod
    def _remedy(first: int) -> str:
        if first == 1:
            return "It was so from the first step: look for extreme values in the images, or lower the learning rate."
        return "Take a lower learning rate, and train anew, or --resume true from the last checkpoint."
