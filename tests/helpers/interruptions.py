# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Interrupting this process in the middle of something, as Ctrl+C does."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager

import pytest


@contextmanager
def interrupted_when(condition):
    """What runs inside is interrupted as soon as the condition holds, and has to end by that within 30 seconds."""

    def interrupt():
        while not condition():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    started = time.monotonic()
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    thread.join()
    assert time.monotonic() - started < 30
