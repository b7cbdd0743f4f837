# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from monai_fewshot.apps.bundles import LearnsFrom
from monai_fewshot.apps.bundles.bundle_step import Step, setting_names

from .description import DataSet, Matrix, Row

__all__ = ["MatrixCell", "planned_cells"]

PLACES = ("dataset_dir", "ckpt_dir", "cache_dir", "checkpoint", "output_dir", "resume")
"""Settings that tell where things lie, which make no other cell."""


@dataclass(frozen=True)
class MatrixCell:
    """One training, and its evaluation on one data set.

    Attributes:
        matrix: what it belongs to.
        row: what it belongs to.
        group: classes, by their names in the data set that is trained on, that the network is tested for.
        fold: number of the fold.
        seed: of the training.
    """

    matrix: Matrix
    row: Row
    group: tuple[str, ...]
    fold: int
    seed: int

    @property
    def training_name(self) -> str:
        """Folder of the training below that of all cells; cells across data sets share it."""
        setting = "any_setting" if self.row.method.sees_tested_classes else f"setting{self.row.setting}"
        group = "all" if self.group == self.row.train.classes else "+".join(self.group).replace(" ", "_")
        return "/".join([self.row.method.name, self.row.train.name, setting, group, f"fold{self.fold}_seed{self.seed}"])

    @property
    def name(self) -> str:
        """Folder of the evaluation below that of all cells."""
        return f"{self.training_name}/on_{self.row.test.name}"

    @property
    def training_folder(self) -> Path:
        """Where the training leaves its checkpoints and log."""
        return self.matrix.output_dir / "cells" / self.training_name

    @property
    def folder(self) -> Path:
        """Where the evaluation leaves its results and log."""
        return self.matrix.output_dir / "cells" / self.name

    @property
    def tested(self) -> tuple[str, ...]:
        """Tested classes by their names in the data set that is tested on."""
        there = {name.casefold() for name in self.group}
        return tuple(name for name in self.row.classes if name.casefold() in there)

    def training(self, iterations: int | None = None) -> Step | None:
        """Command of the training, None of a method that has none.

        Args:
            iterations: of each stage; None for what the bundle does by itself.
        """
        method, data = self.row.method, self.row.train
        if not method.is_trained:
            return None
        settings = {
            "dataset_dir": data.path,
            "fold": self.fold,
            "seed": self.seed,
            "ckpt_dir": self.training_folder / "model",
            "cache_dir": self.matrix.output_dir / "cache",
            "resume": True,
            **self._hidden(),
            **method.budget.settings(iterations),
        }
        return self._step("train", settings, data)

    def evaluation(self) -> Step:
        """Command of the evaluation."""
        data = self.row.test
        settings = {
            "dataset_dir": data.path,
            "fold": self.fold,
            "seed": self.seed,
            "checkpoint": self.training_folder / "model" / "model.pt",
            "output_dir": self.folder,
        }
        if self.tested != data.all_classes:
            settings["classes"] = list(self.tested)
        return self._step("evaluate", settings, data)

    def identity(self) -> dict[str, Any]:
        """What makes the cell's results, as JSON holds it: another cell in its folder would differ in this."""
        training, budget = self.training(), asdict(self.row.method.budget)
        steps = {"train": training, "evaluate": self.evaluation()}
        content = {key: None if step is None else _facts(step) for key, step in steps.items()}
        data = {"trained on": self.row.train.fingerprint, "tested on": self.row.test.fingerprint}
        identity = {**content, "budget": None if training is None else budget, "classes": self.tested, "data": data}
        return json.loads(json.dumps(identity, default=str))

    def results(self) -> dict[str, Any] | None:
        """What is known of a finished cell, None of another."""
        return read_json(self.folder / "cell.json")

    def failure(self) -> str | None:
        """Why the cell failed when it was last run, None where it did not."""
        return (read_json(self.folder / "failure.json") or {}).get("error")

    def _hidden(self) -> dict[str, Any]:
        """Which classes training may see, or must not."""
        method, data = self.row.method, self.row.train
        hidden = {"exclude_classes": list(self.group)} if self.row.setting == 2 else {}
        if method.learns_from == LearnsFrom.IMAGES:
            return hidden
        if method.learns_from == LearnsFrom.OTHER_CLASSES:
            return {"classes": [name for name in data.classes if name not in self.group], **hidden}
        return {"classes": list(data.classes)}

    def _step(self, name: str, settings: Mapping[str, Any], data: DataSet) -> Step:
        """Tell a bundle what it understands, and all that the user says."""
        row, method = self.row.method, self.row.method.method
        known = setting_names(method.bundle, method.steps[name])
        told = {key: value for key, value in settings.items() if key in known}
        of_user = {**row.settings.get(name, {}), **row.for_dataset.get(data.name, {}).get(name, {})}
        return Step(method.bundle, method.steps[name], {**told, **of_user})


def _facts(step: Step) -> dict[str, Any]:
    settings = {key: value for key, value in step.settings.items() if key not in PLACES}
    return {"bundle": step.folder.name, "configs": step.configs, "settings": settings}


def read_json(path: Path) -> dict[str, Any] | None:
    """Content of a file, None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it to have it made anew.") from error


def planned_cells(matrix: Matrix, row: Row) -> Iterator[MatrixCell]:
    """Cells of a row, fold after fold, seed after seed, one for each network that is needed for all tested classes."""
    hides = row.method.learns_from == LearnsFrom.OTHER_CLASSES
    hides = hides or (row.method.learns_from == LearnsFrom.IMAGES and row.setting == 2)
    groups = row.train.groups if hides else (row.train.classes,)
    for fold in row.folds:
        for seed in matrix.seeds_of(row.method):
            for group in groups:
                yield MatrixCell(matrix, row, group, fold, seed)
