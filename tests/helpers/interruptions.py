# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Waiting for events, and interrupting this process in the middle of something, as Ctrl+C does."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE = 600.0
"""Seconds after which a test that waits for an event fails; on the busiest machine, events come long before."""


def wait_until(condition):
    """Wait for a condition, however busy the machine is."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for does not happen"
        time.sleep(0.01)


def is_alive(pid):
    """Whether a process runs; one that has ended and that nobody has asked for its exit code does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def interrupted_when(condition):
    """What runs inside is interrupted as soon as the condition holds, and has to end by that."""

    def interrupt():
        wait_until(condition)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    thread.join()
