# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import uuid
from pathlib import Path

__all__ = ["write_atomically"]


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Write a file that is either complete or not there, making its folder where needed.

    The content goes to a file beside it that is moved into place, so that a reader, or a run killed meanwhile, never
    sees half of it. Threads, processes and machines may write the same file at once; one of them writes last.

    Args:
        path: the file; an existing one is replaced.
        content: bytes, or text to be encoded in UTF-8.

    Returns:
        The path.

    Raises:
        ValueError: where the folder cannot be made or written to.

    Example:
        >>> import tempfile
        >>> write_atomically(Path(tempfile.mkdtemp()) / "new" / "scores.txt", "0.73").read_text()
        '0.73'
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(
            f"Cannot write {path}: {error}. Name an output folder that you may write to, on a disk with room."
        ) from error
    return path
