# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from monai_fewshot.apps.bundles.child_processes import ChildProcesses, signals_interrupt

__all__ = ["run_jobs"]

Result = TypeVar("Result")


def run_jobs(
    jobs: Mapping[str, Callable[[ChildProcesses], Result]],
    parallel: int,
    ended: Callable[[str, Result | None, BaseException | None], None],
) -> None:
    """Run jobs, some at a time; one that fails does not stop the others.

    Args:
        jobs: by name, in the order in which they begin; each starts its commands through what it is given.
        parallel: jobs at a time.
        ended: called in the calling thread after each, with its name and its result or its error.

    Raises:
        KeyboardInterrupt: on Ctrl-C or a signal to end, when all processes have ended.
    """
    processes = ChildProcesses()
    with signals_interrupt(), ThreadPoolExecutor(parallel) as pool:
        try:
            futures = {pool.submit(job, processes): name for name, job in jobs.items()}
            for future in as_completed(futures):
                error = future.exception()
                ended(futures[future], None if error is not None else future.result(), error)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.end()
            raise
