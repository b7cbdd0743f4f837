# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from monai.config import PathLike

from .atomic_write import WriteError

__all__ = ["lock_folder", "locked_file", "unlock_folder"]

LOCK_FILE = ".training.lock"
PATIENCE = 300.0
"""Seconds to wait for another process to change a file, which takes far less."""
logger = logging.getLogger(__name__)
_held: dict[tuple[int, str], FileLock] = {}


def lock_folder(folder: PathLike) -> None:
    """Keep other processes from training in a folder, until :func:`unlock_folder` or the end of this process.

    The system gives the lock back however the process ends. On a file system without locks there is a warning.

    Args:
        folder: made where it does not exist. One that this process has locked already stays locked.

    Raises:
        ValueError: where another process has locked it.
        OSError: where it cannot be made.
    """
    if _key(folder) in _held:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(folder) / LOCK_FILE, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"Another training is running in {folder}. Wait for its end, or pass another --ckpt_dir."
        ) from None
    except (OSError, NotImplementedError) as error:
        logger.warning("%s cannot be locked (%s): see to it that no other training writes there", folder, error)
    else:
        _held[_key(folder)] = lock


def unlock_folder(folder: PathLike) -> None:
    """Let other processes train in a folder again; does nothing where this one has not locked it."""
    lock = _held.pop(_key(folder), None)
    if lock is not None:
        lock.release()


@contextmanager
def locked_file(path: PathLike) -> Iterator[None]:
    """Keep other processes from changing a file meanwhile, which they do in the same way.

    Args:
        path: the file; its folder is made, and a lock file lies beside it.

    Raises:
        WriteError: where another process does not let go of it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=PATIENCE)
    try:
        lock.acquire()
    except Timeout:
        raise WriteError(f"{path} is locked by another process for {PATIENCE:g} s: end it, and run again.") from None
    except (OSError, NotImplementedError) as error:
        logger.warning("%s cannot be locked (%s): see to it that no other process writes there", path, error)
    try:
        yield
    finally:
        lock.release()


def _key(folder: PathLike) -> tuple[int, str]:
    return os.getpid(), os.path.realpath(folder)
