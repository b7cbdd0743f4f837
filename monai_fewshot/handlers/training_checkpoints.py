# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine
from monai.config import PathLike
from monai.handlers import CheckpointLoader, CheckpointSaver
from torch.optim.lr_scheduler import LRScheduler

from monai_fewshot.utils import RandomState, agree_on_file, checkpoint_to_resume, run_together

from .resumed_training import check_same_length, check_same_training, keep_own_schedule

__all__ = ["BestModelSaver", "FinalModelSaver", "TrainingCheckpoints"]


class _SaverInProcesses(CheckpointSaver):
    """MONAI's, of which all processes learn where the first one cannot write; attach it in all of them."""

    def __init__(self, save_dir: str, save_dict: dict[str, Any], **settings: Any) -> None:
        run_together(super().__init__, save_dir, save_dict, **settings)

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
    every process has one; the first one writes, and where it cannot, all end with the reason.

    Args:
        save_dir: folder.
        save_dict: objects to save, the network among them.
        filename: name of the file.
    """

    def __init__(self, save_dir: str, save_dict: dict[str, Any], filename: str = "model.pt") -> None:
        super().__init__(save_dir, save_dict, save_key_metric=True, key_metric_filename=filename)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far and its file."""
        return dict(self._key_metric_checkpoint.state_dict())


class FinalModelSaver(_SaverInProcesses):
    """MONAI's ``CheckpointSaver`` for the end of a training; all processes fail where the first one cannot write.

    Args:
        save_dir: folder.
        save_dict: objects to save, the network among them.
        filename: name of the file.
    """

    def __init__(self, save_dir: str, save_dict: dict[str, Any], filename: str = "model.pt") -> None:
        super().__init__(save_dir, save_dict, save_final=True, final_filename=filename)

    def completed(self, engine: Engine) -> None:
        """Save, in all processes or none."""
        run_together(super().completed, engine)


class TrainingCheckpoints:
    """Save all that a training needs to go on exactly as if it had not been interrupted, and go on from it.

    A training may go on for more epochs, or for fewer that are not over yet: the learning rate follows its present
    length.

    After every epoch the objects, the trainer's epoch and iteration and the random generators are saved; the last two
    files are kept, so that a run killed while it writes one can go on from the other. In a process group every process
    has this handler; the first one writes, and where it cannot, all end with the reason.

    Args:
        folder: where checkpoints are written.
        objects: network, optimizer, learning rate schedule and what else has a state, by name.
        resume: whether to go on with the newest checkpoint in the folder, where there is one.

    Raises:
        ValueError: where the folder has checkpoints and ``resume`` is false, none of them can be read, they are of a
            training with other settings, or processes see different ones.
    """

    def __init__(self, folder: PathLike, objects: Mapping[str, Any], resume: bool = False) -> None:
        self.folder = str(folder)
        self.objects = {**objects, "random_state": RandomState()}
        self.checkpoint = run_together(checkpoint_to_resume, folder, resume)
        agree_on_file(self.checkpoint, folder)
        if self.checkpoint is not None:
            run_together(check_same_training, self.checkpoint, self.objects)

    def attach(self, engine: Engine) -> None:
        """Load when the engine starts, save when its epochs end.

        Args:
            engine: the trainer.
        """
        objects = {**self.objects, "trainer": engine}
        if self.checkpoint is not None:
            loadable = {name: item for name, item in objects.items() if hasattr(item, "load_state_dict")}
            _LoaderInProcesses(self.checkpoint, loadable, map_location="cpu").attach(engine)
        _SaverInProcesses(self.folder, objects, save_interval=1, n_saved=2).attach(engine)
