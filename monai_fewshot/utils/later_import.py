# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import importlib.util
from typing import Any

from monai.utils import optional_import

__all__ = ["later_import"]


class _LaterModule:
    """Stands for a module, and imports it when one of its attributes is first asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # what copying, pickling and inspection ask of any object
            raise AttributeError(attribute)
        module, _ = optional_import(self._name)
        return getattr(module, attribute)


def later_import(name: str) -> tuple[Any, bool]:
    """Import a module of an optional package when it is first used, not before.

    MONAI's ``optional_import`` imports at once. SimpleITK and highdicom take half a second, which every process of a
    training and of a benchmark would spend, though few read or write what needs them.

    Args:
        name: of the module, dotted.

    Returns:
        What stands for the module, and whether its package is installed. Without the package every attribute raises
        ``OptionalImportError``.

    Example:
        >>> fractions, available = later_import("fractions")
        >>> available, str(fractions.Fraction(2, 6))
        (True, '1/3')
        >>> later_import("no_such_package.part")[1]
        False
    """
    try:
        spec = importlib.util.find_spec(name.partition(".")[0])
    except ImportError:  # of a finder that refuses it
        spec = None
    return _LaterModule(name), spec is not None
