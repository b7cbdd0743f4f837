# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from monai.config import NdarrayOrTensor
from monai.utils import ImageMetaKey, convert_to_numpy

__all__ = [
    "did_you_mean",
    "file_of",
    "list_differences",
    "list_values",
    "reason_of",
    "root_cause",
    "same_reason_at_first",
    "without_frames",
]

VALUES_LISTED = 10
ALIKE_AT_FIRST = 3
Error = TypeVar("Error", bound=BaseException)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Close of a sentence that tells the nearest of the known words, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(known)}."


def file_of(image: Any, otherwise: object) -> str:
    """Name the file that an image was loaded from; where it does not know it, ``otherwise``."""
    return str(getattr(image, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ) or otherwise)


def list_values(values: NdarrayOrTensor | Sequence[float]) -> str:
    """List the distinct values of a label map in increasing order, for an error message.

    Args:
        values: an array of any shape, or numbers.

    Returns:
        The values, separated by commas. Of more than ten, the first ten and how many there are.

    Example:
        >>> list_values([4, 0, 4, 0.5])
        '0, 0.5, 4'
        >>> list_values(range(300))
        '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (300 values)'
    """
    distinct = np.unique(convert_to_numpy(values, wrap_sequence=True)).tolist()
    shown = ", ".join(f"{value:g}" for value in distinct[:VALUES_LISTED])
    return shown + (f", ... ({len(distinct)} values)" if len(distinct) > VALUES_LISTED else "")


def list_differences(one: Mapping[str, Any], other: Mapping[str, Any], name: str = "") -> str:
    """Tell in what two nested dictionaries differ, with both values; empty where they are the same.

    Example:
        >>> list_differences({"fold": 0, "encoder": {"channels": 4}}, {"fold": 0, "encoder": {"channels": 8}})
        'encoder.channels is 4 and 8'
    """
    found = []
    for key in sorted({*one, *other}, key=str):
        ours, theirs = one.get(key), other.get(key)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            found.append(list_differences(ours, theirs, f"{name}{key}."))
        elif ours != theirs:
            found.append(f"{name}{key} is {ours!r} and {theirs!r}")
    return "; ".join(filter(None, found))


def root_cause(error: BaseException, last: type[BaseException] | tuple[type[BaseException], ...] = ()) -> BaseException:
    """Find the error that an error was raised from, however many have passed it on.

    Args:
        error: what was caught.
        last: kinds of errors whose text is made for the user: the search ends at the first of them.

    Returns:
        The error at the end of the chain of causes; ``error`` itself where it has no cause.
    """
    while error.__cause__ is not None and not isinstance(error, last):
        error = error.__cause__
    return error


def reason_of(error: BaseException) -> str:
    """Tell the kind and the text of the error at the end of a chain of causes."""
    reason = root_cause(error)
    return f"{type(reason).__name__}: {reason}"


def same_reason_at_first(failed: Iterable[BaseException], tried: int) -> str | None:
    """Tell why the first three of many items all failed, if for one reason: then no other item fares better.

    Args:
        failed: the errors so far.
        tried: number of items so far.

    Returns:
        The reason; None where other than three were tried, one of them did not fail, or reasons differ.
    """
    reasons = [reason_of(error) for error in failed]
    return reasons[0] if len(reasons) == tried == ALIKE_AT_FIRST and len(set(reasons)) == 1 else None


def without_frames(error: Error) -> Error:
    """Drop from an error that is kept, and from those it comes from, the frames, which hold on to what they worked on.

    Args:
        error: what was caught; it is changed.

    Returns:
        The same.
    """
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            left += [each.__cause__, each.__context__]
    return error
