# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from monai_fewshot.utils import root_cause

__all__ = ["known_error", "show_errors_short"]

VARIABLE = "MONAI_FEWSHOT_TRACEBACK"
KNOWN = (ValueError, OSError, ImportError, RuntimeError)
PROGRAM = "monai.bundle.__main__"


def known_error(error: BaseException) -> BaseException | None:
    """Find the error whose text is made for the user among an error and its causes.

    Args:
        error: what was caught, such as MONAI's for an expression that cannot be evaluated.

    Returns:
        The outermost one that this package has raised, or else one of the system that names a file; None where there is
        neither.
    """
    chain = list(_causes(error))
    ours = (cause for cause in chain if isinstance(cause, KNOWN) and _is_raised_here(cause))
    return next(ours, None) or next((cause for cause in chain if isinstance(cause, OSError) and cause.filename), None)


def show_errors_short() -> None:
    """Let a process of ``python -m monai.bundle`` end with the text of a known error alone.

    Of other errors the frames are shown, and at last the cause. Set the environment variable
    ``MONAI_FEWSHOT_TRACEBACK`` to see the frames of all of them. Other programs are left as they are.
    """
    program = getattr(sys.modules["__main__"], "__spec__", None)
    if program is None or program.name != PROGRAM or os.environ.get(VARIABLE):
        return
    sys.excepthook = _show
    logging.setLogRecordFactory(_record_without_frames)


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    known = known_error(error)
    if known is None:
        sys.__excepthook__(kind, error, trace)
    cause = known or root_cause(error)
    if cause is not error or known is not None:
        print(f"{type(cause).__name__}: {cause}", file=sys.stderr)


def _record_without_frames(*arguments: Any, **options: Any) -> logging.LogRecord:
    record = logging.LogRecord(*arguments, **options)
    if record.exc_info and record.exc_info[1] is not None and known_error(record.exc_info[1]) is not None:
        record.exc_info = None
    return record


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _is_raised_here(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("monai_fewshot.")
