# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from queue import Queue
from typing import Any

from filelock import FileLock

from monai_fewshot.apps.benchmark.matrix.cells import MatrixCell, read_json
from monai_fewshot.apps.benchmark.matrix.description import Matrix
from monai_fewshot.apps.bundles.bundle_step import Step
from monai_fewshot.apps.bundles.child_processes import ChildProcesses
from monai_fewshot.apps.bundles.run_folder import locked_folder, run_logged
from monai_fewshot.utils import Provenance, write_atomically

from .run_folder import code_version, machine

__all__ = ["CellRunner", "run_cells"]


def measured_command(step: Step, usage: Path) -> list[str]:
    """Words of the command line that runs a step and leaves in a file what it used."""
    return [sys.executable, "-m", "monai_fewshot.apps.benchmark.running.measured", str(usage), *step.words()]


@dataclass(frozen=True)
class _Work:
    """Where and through what the commands of a cell are run."""

    processes: ChildProcesses
    lock: int
    device: int | None
    threads: int

    def do(self, step: Step, folder: Path, name: str) -> dict[str, Any]:
        """Run a command, its output added to NAME.log in a folder; return what it used."""
        environment = step.environment(self.threads)
        if self.device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(self.device)
        usage, log_path = folder / f"{name}_usage.json", folder / f"{name}.log"
        run_logged(step, measured_command(step, usage), log_path, self.processes, environment, self.lock)
        return json.loads(usage.read_text())


@dataclass
class CellRunner:
    """Trains and evaluates; each training has a folder of its own, and each of its evaluations one in that.

    A training that was interrupted goes on from its last checkpoint, if its bundle can; one that is done is not
    repeated. ``cell.json`` of a finished evaluation holds all that made it.

    Attributes:
        matrix: what the cells belong to.
    """

    matrix: Matrix

    def __post_init__(self) -> None:
        places = [device for device in self.matrix.devices or (None,) for _ in range(self.matrix.parallel)]
        self.parallel = len(places)
        self._free: Queue[int | None] = Queue()
        for place in places:
            self._free.put(place)
        self._code = code_version()

    def run(self, cells: Sequence[MatrixCell], processes: ChildProcesses) -> dict[str, str | None]:
        """Do cells that share one training.

        Args:
            cells: that are not done.
            processes: through which commands are started.

        Returns:
            What went wrong with each, by name; None with those that succeeded.

        Raises:
            RuntimeError: where the folder is in use.
        """
        device = self._free.get()
        folder = cells[0].training_folder
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with locked_folder(folder) as lock:
                work = _Work(processes, lock, device, self.matrix.threads)
                try:
                    training = self._trained(cells[0], work)
                except RuntimeError as error:
                    return {cell.name: _noted(cell, error, processes) for cell in cells}
                return {cell.name: self._evaluated(cell, training, work) for cell in cells}
        finally:
            self._free.put(device)

    def _trained(self, cell: MatrixCell, work: _Work) -> dict[str, Any] | None:
        path, attempts = cell.training_folder / "training.json", cell.training_folder / "attempts.json"
        if (done := read_json(path)) is not None or cell.training() is None:
            return done
        iterations = self._iterations(cell, work)
        step = cell.training(iterations)
        assert step is not None
        before = (read_json(attempts) or {"seconds": 0.0})["seconds"]
        started = time.perf_counter()
        try:
            usage = work.do(step, cell.training_folder, "train")
        except RuntimeError:
            write_atomically(attempts, json.dumps({"seconds": before + time.perf_counter() - started}))
            raise
        times = {key: usage[key] + before for key in ("seconds", "busy_seconds")}
        record = {**usage, **times, "iterations": iterations, "command": step.command(), "code": self._code}
        write_atomically(path, json.dumps(record, indent=1))
        return record

    def _evaluated(self, cell: MatrixCell, training: dict[str, Any] | None, work: _Work) -> str | None:
        cell.folder.mkdir(parents=True, exist_ok=True)
        step = cell.evaluation()
        try:
            usage = work.do(step, cell.folder, "evaluate")
            if not (cell.folder / "results.csv").is_file():
                raise RuntimeError(f"evaluate left no results.csv in {cell.folder}")
        except RuntimeError as error:
            return _noted(cell, error, work.processes)
        record = {
            "name": cell.name,
            "identity": cell.identity(),
            "training": training,
            "evaluation": {**usage, "command": step.command(), "code": self._code},
            "versions": Provenance("").state_dict()["versions"],
            "machine": machine(),
            "threads": self.matrix.threads,
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        (cell.folder / "failure.json").unlink(missing_ok=True)
        write_atomically(cell.folder / "cell.json", json.dumps(record, indent=1))
        return None

    def _iterations(self, cell: MatrixCell, work: _Work) -> int | None:
        """Iterations of the budget; where it is of minutes, the same for all cells that are trained alike."""
        method, data = cell.row.method, cell.row.train.name
        budget = method.budget
        if budget.minutes is None:
            return budget.iterations
        of_its_own = method.for_dataset.get(data, {}).get("train")
        folder = self.matrix.output_dir / "speed" / (f"{method.name}_{data}" if of_its_own else method.name)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".speed.lock"):
            speed = read_json(folder / "speed.json") or self._probe(cell, folder, work)
        return max(budget.epochs, round(60 * budget.minutes / speed["seconds_per_iteration"]))

    def _probe(self, cell: MatrixCell, folder: Path, work: _Work) -> dict[str, Any]:
        """Time two trainings, whose difference is that of iterations alone, after one that fills the caches."""
        few = cell.row.method.budget.probe_iterations
        seconds = {}
        for iterations in (1, few, 4 * few):
            step = cell.training(iterations)
            assert step is not None
            once = {"epoch_length": iterations, "max_epochs": 1, "ckpt_dir": folder / str(iterations), "resume": False}
            settings = {**step.settings, **{key: value for key, value in once.items() if key in step.settings}}
            step = Step(step.bundle, step.configs, settings)
            seconds[iterations] = work.do(step, folder, "train")["busy_seconds"]
        each = max(seconds[4 * few] - seconds[few], 0.1 * seconds[4 * few]) / (3 * few)
        speed = {"seconds_per_iteration": each, "seconds": seconds, "machine": machine()}
        write_atomically(folder / "speed.json", json.dumps(speed, indent=1))
        return speed


def run_cells(cells: Sequence[MatrixCell], processes: ChildProcesses) -> dict[str, str | None]:
    """Do cells that share one training in a job of a cluster, on the device that the job has; see :class:`CellRunner`.

    Args:
        cells: that are not done.
        processes: through which commands are started.
    """
    return CellRunner(replace(cells[0].matrix, devices=(), parallel=1)).run(cells, processes)


def _noted(cell: MatrixCell, error: Exception, processes: ChildProcesses) -> str:
    """Keep the reason of a failure in the cell's folder; an interruption is none."""
    if processes.ended:
        return "interrupted"
    cell.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(cell.folder / "failure.json", json.dumps({"error": str(error)}))
    return str(error)
