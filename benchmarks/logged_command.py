# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Commands whose output goes to a file, and why one of them failed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from monai_fewshot.apps.bundles import ChildProcesses, Step

CAUSE_ENDS = "\n\nThe above exception was the direct cause"
"""What Python prints below an exception that led to another one."""


def run_logged(command: Sequence[str], folder: Path, log: Path, threads: int, processes: ChildProcesses) -> float:
    """Run a command as the benchmark runs bundles, its output in a new file, and return the seconds it took.

    Raises:
        RuntimeError: where it fails, with the last line of the first exception in its output.
    """
    started = time.perf_counter()
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as file:
        environment = Step.environment(threads)
        code = processes.run(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, env=environment)
    if code:
        cause = log.read_text(errors="replace").partition(CAUSE_ENDS)[0].strip()
        raise RuntimeError(f"{cause.rpartition(chr(10))[2] or 'no output'} (exit code {code}, {log.name})")
    return time.perf_counter() - started
