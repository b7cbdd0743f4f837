# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from monai.utils import OptionalImportError, optional_import

from monai_fewshot.apps.bundles.child_processes import ChildProcesses, signals_interrupt

__all__ = ["Cluster", "run_on_cluster"]

submitit, has_submitit = optional_import("submitit")

Result = TypeVar("Result")
KINDS = ("slurm", "local")
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_END = 60.0
"""How long jobs that are canceled may take to end."""


@dataclass(frozen=True)
class Cluster:
    """Where jobs are run by submitit.

    Attributes:
        kind: "slurm", or "local" for processes of this machine, to try jobs out.
        partition: of Slurm; None for its default.
        hours: that a job may take; one that takes longer is queued again, three times at most, and goes on.
        gpus: of each job.
        threads: of each job.
        parallel: jobs at a time on this machine; Slurm gets all at once.

    Raises:
        ValueError: for another kind, or a partition without Slurm, or hours that are not above 0.
        OptionalImportError: where submitit is not installed.
    """

    kind: str
    partition: str | None = None
    hours: float = 24.0
    gpus: int = 0
    threads: int = 1
    parallel: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"--cluster is {self.kind!r}: use {' or '.join(KINDS)}.")
        if self.partition is not None and self.kind != "slurm":
            raise ValueError("--partition is one of Slurm: give --cluster slurm, or leave it out.")
        if self.hours <= 0:
            raise ValueError(f"--hours is {self.hours}: a job needs more than 0.")
        if not has_submitit:
            raise OptionalImportError('--cluster needs submitit: pip install "monai_fewshot[cluster]".')

    def executor(self, folder: Path) -> Any:
        """Make what submits jobs.

        Args:
            folder: for what submitit writes, which all machines of the cluster see.
        """
        executor = submitit.AutoExecutor(folder, cluster=self.kind)
        asked = {"slurm_partition": self.partition, "gpus_per_node": self.gpus or None}
        executor.update_parameters(
            name="monai_fewshot",
            timeout_min=max(1, round(60 * self.hours)),
            cpus_per_task=self.threads,
            **{name: value for name, value in asked.items() if value is not None},
        )
        return executor


class _Job(Generic[Result]):
    """A job as the machine that runs it sees it; interrupted, it ends the commands it has started."""

    def __init__(self, work: Callable[[ChildProcesses], Result]) -> None:
        self.work = work

    def __call__(self) -> Result:
        """Do the work, on the machine of the job."""
        self.processes = ChildProcesses()
        with signals_interrupt():
            try:
                return self.work(self.processes)
            except BaseException:
                self.processes.end()
                raise

    def checkpoint(self) -> Any:
        """End before the time of the job is over, and be queued again; called by submitit."""
        self.processes.end()
        return submitit.helpers.DelayedSubmission(_Job(self.work))


def run_on_cluster(
    jobs: Mapping[str, Callable[[ChildProcesses], Result]],
    cluster: Cluster,
    folder: Path,
    ended: Callable[[str, Result | None, BaseException | None], None],
) -> None:
    """Run jobs as those of a cluster, see :func:`~monai_fewshot.apps.benchmark.running.work.run_jobs`.

    Args:
        jobs: by name, in the order in which they begin; they can be pickled.
        cluster: where.
        folder: for the logs of the jobs.
        ended: as for ``run_jobs``.

    Raises:
        KeyboardInterrupt: on Ctrl-C or a signal to end, when all jobs have been canceled and have ended.
    """
    executor, waiting, running = cluster.executor(folder), deque(jobs), dict[str, Any]()
    most = len(jobs) if cluster.kind == "slurm" else cluster.parallel
    with signals_interrupt():
        try:
            while waiting or running:
                while waiting and len(running) < most:
                    name = waiting.popleft()
                    running[name] = executor.submit(_Job(jobs[name]))
                for name in [name for name, job in running.items() if job.done()]:
                    ended(name, *_outcome(running.pop(name)))
                time.sleep(SECONDS_BETWEEN_LOOKS if running else 0)
        except BaseException:
            _cancel(running)
            raise


def _outcome(job: Any) -> tuple[Any, BaseException | None]:
    try:
        return job.result(), None
    except Exception as error:  # of the job, as text, or of submitit where the job left nothing
        errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*$", str(error), re.MULTILINE)
        return None, RuntimeError(f"{errors[-1] if errors else type(error).__name__} (see {job.paths.stderr})")


def _cancel(running: Mapping[str, Any]) -> None:
    for job in running.values():
        job.cancel(check=False)
    deadline = time.monotonic() + SECONDS_TO_END
    while any(not job.done() for job in running.values()) and time.monotonic() < deadline:
        time.sleep(SECONDS_BETWEEN_LOOKS)
