# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai.utils import optional_import

__all__ = ["first_error", "locked_folder"]

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
