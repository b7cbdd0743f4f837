# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Bundle runs as cells of a table: each in a folder of its own, skipped when done, some at a time."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from child_processes import ChildProcesses, signals_interrupt

from monai_fewshot.utils import write_atomically

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 31)}
"""Lets glibc keep freed memory for the next step: giving it back and fetching it anew took 44 % of all time here."""
BUNDLES = Path(__file__).parent.parent / "bundles"
OVERALL = "mean"
"""What stands for all classes beside the names of classes."""


@dataclass(frozen=True)
class Step:
    """One bundle command: configuration files and what they are told besides.

    Attributes:
        bundle: name of its folder.
        configs: names of configuration files, later ones over earlier ones.
        settings: overrides by name.
    """

    bundle: str
    configs: tuple[str, ...]
    settings: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where the command is run."""
        return BUNDLES / self.bundle

    @staticmethod
    def environment(threads: int) -> dict[str, str]:
        """Variables that the command is run with."""
        return {**os.environ, **KEEP_MEMORY, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}

    def command(self) -> list[str]:
        """Words of the command line."""
        files = [f"configs/{name}.json" for name in self.configs]
        words = [sys.executable, "-m", "monai.bundle", "run", "--config_file"]
        words.append(files[0] if len(files) == 1 else str(files))
        for key, value in self.settings.items():
            words += [f"--{key}", "$None" if value is None else str(value)]
        return words


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
    processes = ChildProcesses()
    with signals_interrupt(), ThreadPoolExecutor(parallel) as pool:
        try:
            futures = {pool.submit(cell.run, threads, processes): cell.folder.name for cell in waiting}
            for number, future in enumerate(as_completed(futures), 1):
                name, error = futures[future], future.exception()
                if error is None:
                    row = future.result()
                    print(
                        f"{number}/{len(waiting)} {name}: Dice {100 * row['overall']['dice']:.1f}, "
                        f"IoU {100 * row['overall']['iou']:.1f}, {row['minutes']:.1f} min",
                        flush=True,
                    )
                    finished()
                else:
                    failures[name] = str(error)
                    print(f"{number}/{len(waiting)} {name} FAILED: {error}", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.end()
            raise
    return failures


def replace_between(path: Path, marker: str, content: str) -> None:
    """Write content between the lines ``<!-- MARKER:begin -->`` and ``<!-- MARKER:end -->`` of a Markdown file.

    Raises:
        ValueError: where they are not there once each, in order.
    """
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    text = path.read_text()
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{path} must hold the lines {begin} and {end} once each, in this order")
    before, rest = text.split(begin)
    write_atomically(path, f"{before}{begin}\n\n{content}\n\n{end}{rest.split(end)[1]}")
