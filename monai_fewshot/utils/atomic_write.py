# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["WriteError", "atomic_path", "write_atomically", "write_errors"]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WriteError(ValueError):
    """An output file cannot be written; no other scan would fare better, so whoever skips broken input stops here."""


@contextmanager
def atomic_path(path: str | os.PathLike[str], num_bytes: int | None = None) -> Iterator[Path]:
    """Name a file to write that becomes another one when it is complete, making its folder where needed.

    It lies beside that one and has its endings. A reader, or a run killed meanwhile, never sees half a file, and what
    stood there stays where writing fails. Threads, processes and machines may write the same file at once; one of them
    writes last.

    Args:
        path: the file; an existing one is replaced.
        num_bytes: size of what is written, for the error. Defaults to None, not known.

    Yields:
        The path to write to.

    Raises:
        WriteError: where writing raises an OSError; the text says how much room is needed and left on a full disk.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "new" / "mask.nii.gz"
        >>> with atomic_path(path) as temporary:
        ...     temporary.name.endswith(".mask.nii.gz"), temporary.write_bytes(b"voxels"), path.exists()
        (True, 6, False)
        >>> path.read_bytes()
        b'voxels'
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    try:
        with write_errors(path, num_bytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def write_errors(path: str | os.PathLike[str], num_bytes: int | None = None) -> Iterator[None]:
    """Let an OSError while a file is written become a WriteError that says what to do.

    Args:
        path: the file.
        num_bytes: as for :func:`atomic_path`.

    Raises:
        WriteError: in the place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(_why_not_written(Path(path), error, num_bytes)) from error


def write_atomically(path: str | os.PathLike[str], content: bytes | memoryview | str) -> Path:
    """Write a file that is either complete or not there, see :func:`atomic_path`.

    Args:
        path: the file; an existing one is replaced.
        content: bytes, or text to be encoded in UTF-8.

    Returns:
        The path.

    Raises:
        WriteError: where the folder cannot be made or written to.

    Example:
        >>> import tempfile
        >>> write_atomically(Path(tempfile.mkdtemp()) / "new" / "scores.txt", "0.73").read_text()
        '0.73'
    """
    data = content.encode() if isinstance(content, str) else content
    with atomic_path(path, len(data)) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def _why_not_written(path: Path, error: OSError, num_bytes: int | None) -> str:
    text = f"Cannot write {path}: {error.strerror or error}. "
    if error.errno not in FULL:
        return f"{text}Name an output folder that you may write to, on a disk with room."
    needed = "" if num_bytes is None else f"It needs {_megabytes(num_bytes)}. "
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    left = f"{_megabytes(shutil.disk_usage(folder).free)} are left on the disk of {folder}"
    return f"{text}{needed}{left}, or less where a quota holds. Free some, or name another folder, and run again."


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.3g} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:.3g} GB"
