# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.config import NdarrayOrTensor
from monai.utils import ImageMetaKey, convert_to_numpy

__all__ = ["file_of", "list_values", "root_cause"]

VALUES_LISTED = 10


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
