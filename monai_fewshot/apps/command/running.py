# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_fewshot.apps.bundles import BundleMethod
from monai_fewshot.apps.bundles.bundle_step import Step, first_part, setting_names
from monai_fewshot.apps.bundles.child_processes import ChildProcesses, signals_interrupt
from monai_fewshot.apps.bundles.run_folder import locked_folder, run_logged

__all__ = ["StepRunner", "step_runner"]


class StepRunner:
    """Runs the steps of a method, each in a process of its own, with logs in a folder.

    Args:
        method: whose steps.
        folder: where logs are written.
        processes: through which processes are started.
        lock: descriptor of :func:`~monai_fewshot.apps.bundles.run_folder.locked_folder`.
    """

    def __init__(self, method: BundleMethod, folder: Path, processes: ChildProcesses, lock: int) -> None:
        self.method = method
        self.folder = folder
        self.processes = processes
        self.lock = lock

    def run(self, name: str, settings: Mapping[str, Any]) -> None:
        """Run a step with those of the settings that its configuration has.

        Args:
            name: of the step.
            settings: by name.

        Raises:
            RuntimeError: where it fails; the text has the reason and names the log.
        """
        known = setting_names(self.method.bundle, self.method.steps[name])
        told = {key: value for key, value in settings.items() if first_part(key) in known}
        step = Step(self.method.bundle, self.method.steps[name], told)
        command = [sys.executable, "-m", "monai_fewshot.apps.bundles.step_process", *step.words()]
        log = self.folder / f"{name}.log"
        run_logged(step, command, log, self.processes, step.environment(), self.lock, show_progress=True)


@contextmanager
def step_runner(method: BundleMethod, folder: Path) -> Iterator[StepRunner]:
    """Run steps of a method; on Ctrl+C, or a signal to end, their processes are ended too.

    Args:
        method: whose steps.
        folder: which exists, where logs are written; one run at a time works in it.

    Yields:
        What runs the steps.

    Raises:
        RuntimeError: where another process works in the folder.
    """
    processes = ChildProcesses()
    in_main = threading.current_thread() is threading.main_thread()
    with locked_folder(folder) as lock:
        try:
            if in_main:
                with signals_interrupt():
                    yield StepRunner(method, folder, processes, lock)
            else:
                yield StepRunner(method, folder, processes, lock)
        finally:
            processes.end()
