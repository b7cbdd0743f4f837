# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["ChildProcesses", "signals_interrupt"]

PATIENCE = 15.0
"""Seconds that a process has to end by itself."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ChildProcesses:
    """Processes started from several threads, to be ended together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen] = set()
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the processes have been ended."""
        return self._ended

    def run(self, command: Sequence[str], **options: Any) -> int:
        """Run a command in a process group of its own, so that Ctrl-C does not reach it, and return its exit code.

        Args:
            command: program and arguments.
            options: of ``subprocess.Popen``.

        Returns:
            The exit code.

        Raises:
            RuntimeError: when the processes have been ended.
            KeyboardInterrupt: on Ctrl-C in the thread that waits, when the process has ended.
        """
        with self._lock:
            if self._ended:
                raise RuntimeError("interrupted")
            process = subprocess.Popen(command, start_new_session=True, **options)
            self._running.add(process)
        try:
            return process.wait()
        except BaseException:
            _end([process])
            raise
        finally:
            with self._lock:
                self._running.discard(process)

    def end(self) -> None:
        """End all processes with their own children, and let none start any more."""
        with self._lock:
            self._ended = True
            running = list(self._running)
        _end(running)


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Let signals that would end this process raise KeyboardInterrupt, as Ctrl-C does, so that children are ended."""
    previous = {number: signal.signal(number, signal.default_int_handler) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end(running: Sequence[subprocess.Popen]) -> None:
    for process in running:
        _signal_group(process, signal.SIGTERM)
    for process in running:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, number)
