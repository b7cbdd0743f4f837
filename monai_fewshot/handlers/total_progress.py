# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from ignite.engine import Engine, Events
from tqdm.auto import tqdm

__all__ = ["TotalProgress"]


class TotalProgress:
    """Show how far a training is, and how long it will still take.

    ``ignite.handlers.ProgressBar`` counts the iterations of an epoch, or epochs; this counts all iterations.

    Args:
        desc: text before the bar.
    """

    def __init__(self, desc: str = "training") -> None:
        self.desc = desc
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer.

        Args:
            engine: the trainer; its number of epochs counts when the first iteration is done.
        """
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def __call__(self, engine: Engine) -> None:
        """Count an iteration."""
        if self.bar is None:
            total = engine.state.max_epochs * engine.state.epoch_length
            self.bar = tqdm(desc=self.desc, total=total, initial=engine.state.iteration - 1, unit="step")
        self.bar.update()

    def close(self, engine: Engine | None = None) -> None:
        """End the line of the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _fail(self, engine: Engine, error: Exception) -> None:
        self.close()
        raise error
