# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Bundle runs as cells of a table: each in a folder of its own, skipped when done, some at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from monai_fewshot.apps.benchmark import run_jobs
from monai_fewshot.apps.bundles import ChildProcesses, Step
from monai_fewshot.utils import write_atomically

OVERALL = "mean"
"""What stands for all classes beside the names of classes."""


@dataclass(frozen=True)
class Cell:
    """Steps that make one figure of a table, or a few.

    Attributes:
        folder: of the cell.
        steps: in order.
        evaluations: folders in it, in each of which a step leaves a ``results.json``; the first is the one that counts.
    """

    folder: Path
    steps: tuple[Step, ...]
    evaluations: tuple[str, ...] = ("eval",)

    def results(self) -> dict[str, Any] | None:
        """Results of a finished cell, with the minutes it took, else None."""
        path = self.folder / "cell.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def run(self, threads: int, processes: ChildProcesses) -> dict[str, Any]:
        """Do all steps.

        Raises:
            RuntimeError: where one fails.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.time()
        for step in self.steps:
            with open(self.folder / "log.txt", "a") as log:
                environment = step.environment(threads)
                code = processes.run(step.command(), cwd=step.folder, stdout=log, stderr=log, env=environment)
            if code:
                raise RuntimeError(f"{' '.join(step.configs)} ended with {code}, see {self.folder / 'log.txt'}")
        evaluations = {name: _summary(self.folder / name / "results.json") for name in self.evaluations}
        by_class = dict(next(iter(evaluations[self.evaluations[0]].values())))
        minutes = (time.time() - started) / 60
        result = {
            "overall": by_class.pop(OVERALL),
            "by_class": by_class,
            "evaluations": evaluations,
            "minutes": minutes,
        }
        write_atomically(self.folder / "cell.json", json.dumps(result, indent=1))
        return result


def _summary(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Read the figures over all folds of an evaluation, by protocol and class."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in json.loads(path.read_text())["summary"]:
        if row["fold"] is None:
            name = OVERALL if row["class_number"] is None else row["class_name"]
            found.setdefault(row["protocol"], {})[name] = row
    return found


def overall(result: Mapping[str, Any], evaluation: str, protocol: str | None = None) -> dict[str, Any]:
    """Figures over all classes of a finished cell, of one of its evaluations, by default of its first protocol."""
    protocols = result["evaluations"][evaluation]
    return protocols[next(iter(protocols)) if protocol is None else protocol][OVERALL]


def run_cells(cells: Sequence[Cell], parallel: int, threads: int, finished: Callable[[], None]) -> dict[str, str]:
    """Run what is not done; a cell that fails does not stop the others.

    Args:
        cells: in the order in which they begin.
        parallel: cells at a time.
        threads: of each.
        finished: called after each that succeeded.

    Returns:
        What went wrong, by folder name.
    """
    waiting = [cell for cell in cells if cell.results() is None]
    print(f"{len(cells) - len(waiting)} of {len(cells)} are done", flush=True)
    failures: dict[str, str] = {}
    numbers = count(1)

    def ended(name: str, result: dict[str, Any] | None, error: BaseException | None) -> None:
        outcome = f" FAILED: {error}" if result is None else _figures(result)
        print(f"{next(numbers)}/{len(waiting)} {name}{outcome}", flush=True)
        if result is None:
            failures[name] = str(error)
        else:
            finished()

    run_jobs({cell.folder.name: partial(cell.run, threads) for cell in waiting}, parallel, ended)
    return failures


def _figures(result: Mapping[str, Any]) -> str:
    dice, iou = (100 * result["overall"][name] for name in ("dice", "iou"))
    return f": Dice {dice:.1f}, IoU {iou:.1f}, {result['minutes']:.1f} min"
