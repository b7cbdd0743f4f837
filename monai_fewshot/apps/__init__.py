# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["make_phantom_dataset", "make_phantom_volume"]


def __getattr__(name: str) -> Any:
    """Import a function when it is first asked for, so that the command line shows its help at once."""
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.phantom"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
