# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from monai_fewshot.apps.benchmark.matrix.cells import MatrixCell, planned_cells
from monai_fewshot.apps.benchmark.matrix.description import Matrix

from .cell_runner import CellRunner, run_cells
from .cluster import Cluster, run_on_cluster
from .work import run_jobs

__all__ = ["Schedule"]


class Schedule:
    """All cells of a matrix: what is done, what is to do, how long that will take.

    Args:
        matrix: what is asked for.
        only: part of the names of the cells to run, such as ``ssl_alpnet/chaos_t2``; None for all.
        cluster: that runs them; None for this machine.

    Raises:
        ValueError: where a folder holds a cell that was made otherwise, or no cell has that name.
    """

    def __init__(self, matrix: Matrix, only: str | None = None, cluster: Cluster | None = None) -> None:
        self.matrix = matrix
        self.cluster = cluster
        found = {cell.name: cell for row in matrix.rows() for cell in planned_cells(matrix, row)}
        self.cells = [cell for name, cell in found.items() if only is None or only in f"{name}/"]
        if not self.cells:
            raise ValueError(f"--only {only}: no cell has this in its name; --plan_only lists them.")
        self._check_made_alike()
        self._minutes = self._known_minutes()

    @property
    def waiting(self) -> list[MatrixCell]:
        """Cells that are not done, those of the first fold and seed first, so that all rows fill evenly."""
        waiting = [cell for cell in self.cells if cell.results() is None]
        return sorted(waiting, key=lambda cell: (cell.fold, cell.seed))

    def estimate(self, cells: Iterable[MatrixCell]) -> tuple[float, int]:
        """Minutes that cells will take one after the other, and for how many of their trainings that is unknown."""
        minutes, unknown = 0.0, 0
        for training in _by_training(cells).values():
            each = self._minutes_of(training[0])
            minutes += each or 0.0
            unknown += each is None
        return minutes, unknown

    def plan(self) -> str:
        """Table of what is to do, as Markdown."""
        rows: dict[tuple[str, str, str], list[MatrixCell]] = {}
        for cell in self.cells:
            setting = "" if cell.row.method.sees_tested_classes else str(cell.row.setting)
            name = " to ".join(dict.fromkeys((cell.row.train.name, cell.row.test.name)))
            rows.setdefault((cell.row.method.name, name, setting), []).append(cell)
        lines = ["| method | data set | setting | cells | done | failed before | to do |", "| --- " * 7 + "|"]
        for key, cells in rows.items():
            waiting = [cell for cell in cells if cell.results() is None]
            failed = sum(cell.failure() is not None for cell in waiting)
            counts = (len(cells), len(cells) - len(waiting), failed, self._time(waiting))
            lines.append(f"| {' | '.join(map(str, (*key, *counts)))} |")
        names = "\n".join(f"  {cell.name}" for cell in self.waiting)
        to_do = f"To do, in this order:\n{names}\n\n" if names else ""
        return "\n".join(lines) + f"\n\n{to_do}{self.time_left(self.waiting)}"

    def time_left(self, waiting: Sequence[MatrixCell]) -> str:
        """How long cells will take in all, told in words."""
        if not waiting:
            return "Nothing is left to do."
        minutes, unknown = self.estimate(waiting)
        trainings = len(_by_training(waiting))
        places, at_a_time = 1, ""
        if self.cluster is None or self.cluster.kind != "slurm":
            own = self.matrix.parallel * max(1, len(self.matrix.devices))
            places = min(own if self.cluster is None else self.cluster.parallel, trainings)
            at_a_time = f", {places} at a time"
        if unknown == trainings:
            return f"How long these {trainings} trainings take{at_a_time and at_a_time + ','} shows once some are done."
        rest = f" {unknown} trainings are not counted, whose methods have not been timed yet." if unknown else ""
        total = round(minutes / places)
        return f"About {total // 60} h {total % 60:02d} min{'' if at_a_time else ' of jobs'} are left{at_a_time}.{rest}"

    def run(self, finished: Callable[[], None]) -> dict[str, str]:
        """Do what is not done.

        Args:
            finished: called after each training with its evaluations.

        Returns:
            What went wrong, by name of the cell.

        Raises:
            KeyboardInterrupt: on Ctrl-C or a signal to end, when all processes have ended.
        """
        jobs, failures = _by_training(self.waiting), dict[str, str]()
        left = dict(jobs)
        print(
            f"{len(self.cells) - len(self.waiting)} of {len(self.cells)} cells are done.", self.time_left(self.waiting)
        )

        def ended(name: str, errors: dict[str, str | None] | None, error: BaseException | None) -> None:
            cells = left.pop(name)
            outcomes = errors if errors is not None else dict.fromkeys((cell.name for cell in cells), str(error))
            for cell_name, reason in outcomes.items():
                if reason is not None:
                    failures[cell_name] = reason
                now = time.strftime("%H:%M")
                print(f"{now} {cell_name}: {'done' if reason is None else f'FAILED: {reason}'}", flush=True)
            self._minutes = self._known_minutes()
            print(self.time_left([cell for cells in left.values() for cell in cells]), flush=True)
            finished()

        if self.cluster is None:
            runner = CellRunner(self.matrix)
            run_jobs({name: partial(runner.run, cells) for name, cells in jobs.items()}, runner.parallel, ended)
        else:
            of_cluster = {name: partial(run_cells, cells) for name, cells in jobs.items()}
            run_on_cluster(of_cluster, self.cluster, self.matrix.output_dir / "jobs", ended)
        return failures

    def _check_made_alike(self) -> None:
        made = [(cell, results["identity"]) for cell in self.cells if (results := cell.results()) is not None]
        other = [
            f"  {cell.folder}: {key} was {identity.get(key)}, is {value}"
            for cell, identity in made
            for key, value in cell.identity().items()
            if identity.get(key) != value
        ]
        if other:
            lines = "\n".join(other)
            raise ValueError(f"Cells were made otherwise; remove their folders, or name another output_dir:\n{lines}")

    def _known_minutes(self) -> dict[tuple[str, ...], list[float]]:
        known: dict[tuple[str, ...], list[float]] = {}
        for cell in self.cells:
            if (results := cell.results()) is not None:
                steps = [results["evaluation"], *([results["training"]] if results["training"] else [])]
                minutes = sum(step["seconds"] for step in steps) / 60
                for key in ((cell.row.method.name, cell.row.train.name), (cell.row.method.name,)):
                    known.setdefault(key, []).append(minutes)
        return known

    def _minutes_of(self, cell: MatrixCell) -> float | None:
        """Mean of what is done of the method on the data set, or of the method, or else its budget."""
        method = cell.row.method
        for key in ((method.name, cell.row.train.name), (method.name,)):
            if key in self._minutes:
                return statistics.fmean(self._minutes[key])
        return method.budget.minutes if method.is_trained else None

    def _time(self, cells: Sequence[MatrixCell]) -> str:
        minutes, unknown = self.estimate(cells)
        if unknown and not minutes:
            return "not timed yet"
        return f"{minutes:.0f} min" if cells else "-"


def _by_training(cells: Iterable[MatrixCell]) -> dict[str, list[MatrixCell]]:
    found: dict[str, list[MatrixCell]] = {}
    for cell in cells:
        found.setdefault(cell.training_name, []).append(cell)
    return found
