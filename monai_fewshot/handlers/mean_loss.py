# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from monai_fewshot.utils import mean_over_processes

__all__ = ["MeanLossOverProcesses"]


class MeanLossOverProcesses:
    """Replace the loss in a trainer's output by its mean over all processes, for what logs it afterwards.

    List it before the handlers that log, in every process. Does nothing in a single one.
    """

    def attach(self, engine: Engine) -> None:
        """Register with a trainer that is not decollated.

        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Average."""
        engine.state.output[CommonKeys.LOSS] = mean_over_processes(engine.state.output[CommonKeys.LOSS])
