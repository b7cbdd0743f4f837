# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import subprocess
import sys

import pytest
from interruptions import interrupted_when, is_alive

from monai_fewshot.apps.bundles.child_processes import ChildProcesses

WAITS = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_in_the_thread_that_waits_ends_the_process(tmp_path):
    told = tmp_path / "pid"
    with interrupted_when(lambda: told.is_file() and told.read_text()):
        ChildProcesses().run([sys.executable, "-c", WAITS, str(told)], stdin=subprocess.DEVNULL)
    assert not is_alive(int(told.read_text()))
