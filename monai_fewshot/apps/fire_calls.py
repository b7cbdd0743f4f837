# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fire

__all__ = ["fire_calls"]

TEXT = {"PathLike", "PathLike | None", "str", "str | None"}
"""Annotations of arguments that stay words, although they may look like numbers."""


def fire_calls(
    commands: Callable[..., Any] | Mapping[str, Callable[..., Any]], arguments: Sequence[str] | None, name: str
) -> list[Callable[[], Any]]:
    """Read a command line with Fire, without doing yet what it asks for.

    Fire calls a function with the options that it knows and complains about the others afterwards, as it shows help
    that is asked for behind other options; here the call waits until all is understood, so that a misspelled option
    does nothing.

    Args:
        commands: a function, or functions by the word that chooses them.
        arguments: of the command line; None for those of the process.
        name: of the program, in its help.

    Returns:
        The calls, one at most.

    Raises:
        SystemExit: with code 2 for arguments that are not understood, 0 where help was asked for.

    Example:
        >>> def double(number: int) -> int:
        ...     return 2 * number
        >>> [call() for call in fire_calls(double, ["--number", "4"], "double")]
        [8]
    """
    calls: list[Callable[[], Any]] = []
    if isinstance(commands, Mapping):
        noted: Any = {word: _noted(function, calls) for word, function in commands.items()}
    else:
        noted = _noted(commands, calls)
    fire.Fire(noted, None if arguments is None else list(arguments), name)
    return calls


def _noted(function: Callable[..., Any], calls: list[Callable[[], Any]]) -> Callable[..., None]:
    """A function of the same arguments and help that notes the call instead of making it."""
    signature = inspect.signature(function)
    words = {name for name, parameter in signature.parameters.items() if parameter.annotation in TEXT}

    @functools.wraps(function)
    def note(*arguments: Any, **options: Any) -> None:
        bound: dict[str, Any] = dict(signature.bind(*arguments, **options).arguments)
        bound |= {name: str(bound[name]) for name in words & bound.keys() if bound[name] is not None}
        calls.append(functools.partial(function, **bound))

    return note
