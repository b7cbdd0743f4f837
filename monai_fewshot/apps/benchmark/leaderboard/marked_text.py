# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

from monai_fewshot.utils import write_atomically

__all__ = ["marked_text", "replace_between"]


def marked_text(path: Path, marker: str, content: str) -> str:
    """Text of a file with other content between the lines ``<!-- MARKER:begin -->`` and ``<!-- MARKER:end -->``.

    Args:
        path: the file.
        marker: its name.
        content: what replaces what stands there.

    Returns:
        The text; the file is left as it is.

    Raises:
        ValueError: where the lines are not there once each, in order.
    """
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    text = path.read_text()
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{path} must hold the lines {begin} and {end} once each, in this order")
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{content}\n\n{end}{rest.split(end)[1]}"


def replace_between(path: Path, marker: str, content: str) -> None:
    """Write :func:`marked_text` to its file.

    Args:
        path: the file.
        marker: name of the marker.
        content: what replaces what stands between.
    """
    write_atomically(path, marked_text(path, marker, content))
