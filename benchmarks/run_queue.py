# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Do several runs of the bundle, some of them at a time, and tell how long the rest will take."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bundle_runs import BundleRun, summary, train_and_evaluate

from monai_fewshot.apps.benchmark import run_jobs
from monai_fewshot.apps.bundles import ChildProcesses


@dataclass
class RunQueue:
    """Runs to be done, and what became of them.

    Attributes:
        runs: begun in this order; those that are done already are not repeated.
        parallel: how many are done at a time.
        threads: of each.
        results: of the finished runs, by folder name.
        failures: what went wrong with the others, by folder name.
    """

    runs: Sequence[BundleRun]
    parallel: int
    threads: int
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, BaseException] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.results = {run.folder.name: results for run in self.runs if (results := run.results()) is not None}
        self._begun: dict[str, float] = {}

    def work(self, finished: Callable[[], None] = lambda: None) -> None:
        """Do what is not done; the failure of one run does not stop the others.

        Args:
            finished: called in the calling thread after each run that succeeded.

        Raises:
            KeyboardInterrupt: on Ctrl-C or a signal to end, when all processes have ended.
        """
        waiting = [run for run in self.runs if run.folder.name not in self.results]
        print(f"{len(self.results)} of {len(self.runs)} runs are done, {self.time_left()}", flush=True)

        def ended(name: str, results: dict[str, Any] | None, error: BaseException | None) -> None:
            if results is None:
                self.failures[name] = error or RuntimeError("nothing came of it")
            else:
                self.results[name] = results
                finished()
            self._tell(name)

        run_jobs({run.folder.name: partial(self._do, run) for run in waiting}, self.parallel, ended)

    def time_left(self) -> str:
        """Estimate from the runs that are done."""
        done = [duration(results) for results in self.results.values()]
        open_names = {run.folder.name for run in self.runs} - set(self.results) - set(self.failures)
        if not open_names:
            return "nothing is left to do"
        if not done:
            return "time left unknown until one is done"
        now, each = time.time(), statistics.fmean(done)
        left = sum(max(each - (now - self._begun.get(name, now)), 0) for name in open_names)
        minutes = round(left / min(self.parallel, len(open_names)) / 60)
        return f"about {minutes // 60} h {minutes % 60:02d} min left"

    def _do(self, run: BundleRun, processes: ChildProcesses) -> dict[str, Any]:
        self._begun[run.folder.name] = time.time()
        print(f"{run.folder.name}: begun", flush=True)
        return train_and_evaluate(run, self.threads, processes)

    def _tell(self, name: str) -> None:
        if name in self.failures:
            outcome = f"FAILED: {self.failures[name]}"
        else:
            minutes = duration(self.results[name]) / 60
            outcome = f"Dice in range {percent(self.results[name]):.1f} after {minutes:.0f} min"
        print(f"{name}: {outcome}; {len(self.results)} of {len(self.runs)} done, {self.time_left()}", flush=True)


def percent(results: Mapping[str, Any]) -> float:
    """Mean Dice in range, NaN where it is undefined."""
    dice = summary(results, "alpnet").get("mean", {}).get("dice")
    return math.nan if dice is None else 100 * dice


def duration(results: Mapping[str, Any]) -> float:
    """Seconds that training and evaluation took."""
    return results["training_seconds"] + results["evaluation_seconds"]
