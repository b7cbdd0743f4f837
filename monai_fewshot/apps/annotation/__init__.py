# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .refining import RefinedFolder as RefinedFolder
    from .refining import refine as refine
    from .suggesting import Suggestion as Suggestion
    from .suggesting import suggest as suggest

__all__ = ["RefinedFolder", "Suggestion", "refine", "suggest"]

MODULES = {"RefinedFolder": "refining", "Suggestion": "suggesting", "refine": "refining", "suggest": "suggesting"}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for, so that the command line shows its help at once."""
    if name in MODULES:
        return getattr(importlib.import_module(f"{__name__}.{MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
