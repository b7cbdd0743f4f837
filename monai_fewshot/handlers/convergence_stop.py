# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

__all__ = ["ConvergenceStop"]


class ConvergenceStop:
    """Stop a training whose figure has stopped changing.

    ``monai.handlers.EarlyStopHandler`` waits for a figure to get better, and does not survive a resumed training; this
    is the criterion of Khadka et al. (2022, section 4.1): "the loss function does not change more than 0.001 over ten
    epochs". Give it to :class:`~monai_fewshot.handlers.TrainingCheckpoints` among the objects to save.

    Args:
        figure: takes the engine, returns the figure of the epoch.
        epochs: over how many.
        max_change: largest difference between any two of them, and the one before, that counts as none; a figure that
            is not a number is a change.
    """

    def __init__(self, figure: Callable[[Engine], float], epochs: int = 10, max_change: float = 1e-3) -> None:
        self.figure = figure
        self.epochs = epochs
        self.max_change = max_change
        self.history: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Register with a trainer.

        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Take note of an epoch, and stop where there is no change."""
        self.history = [*self.history, float(self.figure(engine))][-self.epochs - 1 :]
        if len(self.history) > self.epochs and np.ptp(self.history) <= self.max_change:
            engine.logger.info(
                "Converged: the loss has changed by no more than %g over %d epochs.", self.max_change, self.epochs
            )
            engine.terminate()

    def state_dict(self) -> dict[str, Any]:
        """The figures that count."""
        return {"history": list(self.history)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.history = list(state["history"])
