# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

__all__ = ["EXIT_CODES", "SOME_SCANS", "errors_shown"]

FAILURE, BAD_INPUT, SOME_SCANS, INTERRUPTED = 1, 2, 3, 130
EXIT_CODES = (
    "Exit codes: 0 all is well; 1 a failure; 2 bad usage or bad input, before work starts; 3 some scans could not be "
    "read or segmented; 130 interrupted."
)


@contextmanager
def errors_shown() -> Iterator[None]:
    """Turn errors into a text on standard error and an exit code, and keep MONAI's notices of absent codecs away."""
    logging.getLogger("monai").setLevel(logging.ERROR)
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from error
    except RuntimeError as error:
        if isinstance(error, typer.Exit):
            raise
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(FAILURE) from error
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. The same command goes on from here.", err=True)
        sys.exit(INTERRUPTED)
