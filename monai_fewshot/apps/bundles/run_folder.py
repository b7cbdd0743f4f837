# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from monai.utils import optional_import

from .bundle_step import Step
from .child_processes import ChildProcesses

__all__ = ["first_error", "locked_folder", "run_logged"]

fcntl, can_lock = optional_import("fcntl")


@contextmanager
def locked_folder(folder: Path) -> Iterator[int]:
    """Hold a folder's lock, which a child that inherits the descriptor holds on to, should it survive.

    Where the system lacks such locks, nothing is locked.

    Args:
        folder: that exists.

    Yields:
        The descriptor, for ``pass_fds``.

    Raises:
        RuntimeError: where another process works in the folder.
    """
    with open(folder / ".lock", "a") as file:
        if can_lock:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RuntimeError(f"another process works in {folder}") from error
        yield file.fileno()


def first_error(log_path: Path, begin: int = 0) -> str:
    """Tell the first error in a log, which is the cause of those after it, or its last line.

    Args:
        log_path: the log.
        begin: where in the file to begin, in bytes.
    """
    text = log_path.read_bytes()[begin:].decode(errors="replace").strip()
    errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*$", text, re.MULTILINE)
    return errors[0] if errors else text.rpartition("\n")[2]


def run_logged(
    step: Step,
    command: Sequence[str],
    log_path: Path,
    processes: ChildProcesses,
    environment: Mapping[str, str],
    lock: int,
    show_progress: bool = False,
) -> None:
    """Run a step of a bundle in a process of its own, its output added to a log.

    Args:
        step: of a bundle, in whose folder the command is run.
        command: words of the command line that runs it.
        log_path: the log.
        processes: through which the command is started.
        environment: variables.
        lock: descriptor of :func:`locked_folder`.
        show_progress: whether the command's standard error is that of this process, and not the log.

    Raises:
        RuntimeError: where the command fails; the text has its first error and names the log.
    """
    before = log_path.stat().st_size if log_path.exists() else 0
    with open(log_path, "a") as log:
        code = processes.run(
            command,
            stdout=log,
            stderr=None if show_progress else subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            pass_fds=[lock],
            env=dict(environment),
            cwd=step.folder,
        )
    if code:
        raise RuntimeError(f"{log_path.stem} ended with code {code}, see {log_path}: {first_error(log_path, before)}")
