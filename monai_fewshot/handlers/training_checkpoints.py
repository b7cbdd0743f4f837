# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine
from monai.config import PathLike
from monai.handlers import CheckpointLoader, CheckpointSaver

from monai_fewshot.utils import RandomState, checkpoint_to_resume

__all__ = ["BestModelSaver", "TrainingCheckpoints"]


class BestModelSaver(CheckpointSaver):
    """MONAI's ``CheckpointSaver`` for the best validation, whose record of the best survives a resumed training.

    Attach it to the evaluator and give it to :class:`TrainingCheckpoints` among the objects to save.

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


class TrainingCheckpoints:
    """Save all that a training needs to go on exactly as if it had not been interrupted, and go on from it.

    After every epoch the objects, the trainer's epoch and iteration and the random generators are saved; the last two
    files are kept, so that a run killed while it writes one can go on from the other.

    Args:
        folder: where checkpoints are written.
        objects: network, optimizer, learning rate schedule and what else has a state, by name.
        resume: whether to go on with the newest checkpoint in the folder, where there is one.
        map_location: device to load to.

    Raises:
        ValueError: where the folder has checkpoints and ``resume`` is false, or none of them can be read.
    """

    def __init__(
        self,
        folder: PathLike,
        objects: Mapping[str, Any],
        resume: bool = False,
        map_location: torch.device | str = "cpu",
    ) -> None:
        self.folder = str(folder)
        self.objects = {**objects, "random_state": RandomState()}
        self.map_location = map_location
        self.checkpoint = checkpoint_to_resume(folder, resume)

    def attach(self, engine: Engine) -> None:
        """Load when the engine starts, save when its epochs end.

        Args:
            engine: the trainer.
        """
        objects = {**self.objects, "trainer": engine}
        if self.checkpoint is not None:
            loadable = {name: item for name, item in objects.items() if hasattr(item, "load_state_dict")}
            CheckpointLoader(self.checkpoint, loadable, map_location=self.map_location).attach(engine)
        CheckpointSaver(self.folder, objects, save_interval=1, n_saved=2).attach(engine)
