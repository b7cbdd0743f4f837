# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import subprocess
import sys

import filelock
import pytest

from monai_fewshot.utils import lock_folder, unlock_folder

HOLD = """
import sys
from monai_fewshot.utils.folder_lock import lock_folder
lock_folder(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_living_process_holds_its_folder_and_a_dead_one_does_not(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=r"Another training is running in .*pass another --ckpt_dir"):
            lock_folder(tmp_path)
    finally:
        holder.kill()
        holder.communicate()
    lock_folder(tmp_path / ".." / tmp_path.name)
    lock_folder(tmp_path)
    with pytest.raises(filelock.Timeout):
        filelock.FileLock(tmp_path / ".training.lock", timeout=0).acquire()
    unlock_folder(tmp_path)
    with filelock.FileLock(tmp_path / ".training.lock", timeout=0):
        unlock_folder(tmp_path)


def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, caplog):
    def fail(_lock):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    with caplog.at_level(logging.WARNING):
        lock_folder(tmp_path)
    assert "cannot be locked" in caplog.text
