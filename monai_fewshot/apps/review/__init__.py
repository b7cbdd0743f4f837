# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .review_table import Review as Review
    from .review_table import read_reviews as read_reviews
    from .serving import review_masks as review_masks

__all__ = ["Review", "read_reviews", "review_masks"]

MODULES = {"Review": "review_table", "read_reviews": "review_table", "review_masks": "serving"}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for, so that the command line shows its help at once."""
    if name in MODULES:
        return getattr(importlib.import_module(f"{__name__}.{MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
