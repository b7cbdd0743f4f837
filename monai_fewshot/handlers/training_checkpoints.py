# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers.checkpoint import BaseSaveHandler
from monai.config import PathLike
from monai.handlers import CheckpointLoader, CheckpointSaver
from torch.optim.lr_scheduler import LRScheduler

from monai_fewshot.utils import (
    RandomState,
    agree_on_file,
    checkpoint_to_resume,
    checkpoints_by_age,
    lock_folder,
    process_rank,
    run_in_first,
    run_together,
    save_checkpoint,
    unlock_folder,
)

from .resumed_training import check_same_length, check_same_training, keep_own_schedule

__all__ = ["BestModelSaver", "FinalModelSaver", "TrainingCheckpoints"]

logger = logging.getLogger(__name__)
KEPT = 2


class _WholeFiles(BaseSaveHandler):
    """Writes checkpoints that are whole or not there; older ones go when the new one stands.

    Args:
        folder: where to.
        filename: of every checkpoint, which replaces the one before; None to name them by epoch and keep the last two.
    """

    def __init__(self, folder: str, filename: str | None = None) -> None:
        self.folder = Path(folder)
        self.filename = filename

    def __call__(self, checkpoint: Mapping, filename: str, metadata: Mapping | None = None) -> None:
        """Write, in the first process."""
        if process_rank() > 0:
            return
        path = self.folder / (self.filename or filename)
        save_checkpoint(checkpoint, path)
        if self.filename is None:
            files = checkpoints_by_age(self.folder)
            for file in files[files.index(path) + KEPT :]:
                file.unlink()

    def remove(self, filename: str) -> None:
        """Do nothing: ignite calls this before the new file stands."""


class _SaverInProcesses(CheckpointSaver):
    """MONAI's, of which all processes learn where the first one cannot write; attach it in all of them."""

    def __init__(self, save_dir: str, save_dict: dict[str, Any], filename: str | None = None, **settings: Any) -> None:
        run_together(super().__init__, save_dir, save_dict, **settings)
        for checkpoint in (self._final_checkpoint, self._key_metric_checkpoint, self._interval_checkpoint):
            if checkpoint is not None:
                checkpoint.save_handler = _WholeFiles(save_dir, filename)

    def interval_completed(self, engine: Engine) -> None:
        """Save, in all processes or none."""
        run_together(super().interval_completed, engine)

    def metrics_completed(self, engine: Engine) -> None:
        """Save where the metric is the best so far, in all processes or none."""
        run_together(super().metrics_completed, engine)


class _LoaderInProcesses(CheckpointLoader):
    """MONAI's, of which all processes learn where one cannot read; schedules keep the length of this training."""

    def __call__(self, engine: Engine) -> None:
        """Load, in all processes or none."""
        run_together(check_same_length, self.load_path, engine)
        schedules = [item for item in self.load_dict.values() if isinstance(item, LRScheduler)]
        own = [schedule.state_dict() for schedule in schedules]
        run_together(super().__call__, engine)
        for schedule, state in zip(schedules, own, strict=True):
            keep_own_schedule(schedule, state)


class BestModelSaver(_SaverInProcesses):
    """MONAI's ``CheckpointSaver`` for the best validation, whose record of the best survives a resumed training.

    Attach it to the evaluator and give it to :class:`TrainingCheckpoints` among the objects to save. In a process group
    every process has one; the first one writes, and where it cannot, all end with the reason. A validation whose metric
    is not a number does not count.

    Args:
        save_dir: folder.
        save_dict: objects to save, the network among them.
        filename: name of the file.
    """

    def __init__(self, save_dir: str, save_dict: dict[str, Any], filename: str = "model.pt") -> None:
        super().__init__(save_dir, save_dict, filename, save_key_metric=True)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far and its file."""
        return dict(self._key_metric_checkpoint.state_dict())

    def metrics_completed(self, engine: Engine) -> None:
        """Save where the metric is the best so far, in all processes or none."""
        if math.isnan(engine.state.metrics[engine.state.key_metric_name]):
            self.logger.warning("The validation's %s is not a number: it does not count", engine.state.key_metric_name)
        else:
            super().metrics_completed(engine)

    @property
    def has_saved(self) -> bool:
        """Whether any validation has counted."""
        return self._key_metric_checkpoint.last_checkpoint is not None


class FinalModelSaver(_SaverInProcesses):
    """MONAI's ``CheckpointSaver`` for the end of a training; all processes fail where the first one cannot write.

    Deviation: a training that ends with an error leaves no model.

    Args:
        save_dir: folder.
        save_dict: objects to save, the network among them.
        filename: name of the file.
        unless: what saves the model at validations; where it has saved one, that is kept.
    """

    def __init__(
        self,
        save_dir: str,
        save_dict: dict[str, Any],
        filename: str = "model.pt",
        unless: BestModelSaver | None = None,
    ) -> None:
        super().__init__(save_dir, save_dict, filename, save_final=True, final_filename=filename)
        self.unless = unless

    def attach(self, engine: Engine) -> None:
        """Save when the engine completes.

        Args:
            engine: the trainer.
        """
        self.logger = engine.logger
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def completed(self, engine: Engine) -> None:
        """Save, in all processes or none."""
        if self.unless is not None:
            if self.unless.has_saved:
                return
            self.logger.warning("No validation counted: the model is that of the last epoch, not of the best one")
        run_together(super().completed, engine)


class TrainingCheckpoints:
    """Save all that a training needs to go on exactly as if it had not been interrupted, and go on from it.

    A training may go on for more epochs, or for fewer that are not over yet: the learning rate follows its present
    length.

    After every epoch the objects, the trainer's epoch and iteration and the random generators are saved; the last two
    files are kept, so that a training whose newest one is damaged can go on from the other. Meanwhile no other process
    can train in the folder. In a process group every process has this handler; the first one writes, and where it
    cannot, all end with the reason.

    Args:
        folder: where checkpoints are written.
        objects: network, optimizer, learning rate schedule and what else has a state, by name; the network as
            ``model``.
        resume: whether to go on with the newest checkpoint in the folder, where there is one.

    Raises:
        ValueError: where another process trains in the folder, the folder has checkpoints and ``resume`` is false, none
            of them can be read, they are of a training with other settings, or processes see different ones; when the
            engine starts, where there are other checkpoints than before.
    """

    def __init__(self, folder: PathLike, objects: Mapping[str, Any], resume: bool = False) -> None:
        self.folder = str(folder)
        self.objects = {**objects, "random_state": RandomState()}
        run_in_first(lock_folder, folder)
        self.checkpoint = run_together(checkpoint_to_resume, folder, resume)
        agree_on_file(self.checkpoint, folder)
        if self.checkpoint is not None:
            run_together(check_same_training, self.checkpoint, self.objects)
        self.present = self._present()

    def attach(self, engine: Engine) -> None:
        """Load when the engine starts, save when its epochs end.

        Args:
            engine: the trainer.
        """
        objects = {**self.objects, "trainer": engine}
        engine.add_event_handler(Events.STARTED, lambda: run_in_first(self._start))
        if self.checkpoint is not None:
            loadable = {name: item for name, item in objects.items() if hasattr(item, "load_state_dict")}
            _LoaderInProcesses(self.checkpoint, loadable, map_location="cpu").attach(engine)
        _SaverInProcesses(self.folder, objects, save_interval=1, n_saved=None).attach(engine)
        engine.add_event_handler(Events.COMPLETED, self._end)

    def _start(self) -> None:
        lock_folder(self.folder)
        if self._present() != self.present:
            raise ValueError(
                f"Another training has written to {self.folder} since this one was set up. Pass another --ckpt_dir, or "
                "--resume true to go on with that one."
            )
        for remains in Path(self.folder).glob(".*.pt"):
            remains.unlink()

    def _end(self) -> None:
        self.present = self._present()
        if process_rank() == 0:
            unlock_folder(self.folder)

    def _present(self) -> dict[str, int]:
        return {file.name: file.stat().st_mtime_ns for file in Path(self.folder).glob("[!.]*.pt")}
