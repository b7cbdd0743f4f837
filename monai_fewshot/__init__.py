# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Few-shot medical image segmentation for MONAI."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_fewshot.apps.annotation import refine as refine
    from monai_fewshot.apps.annotation import suggest as suggest
    from monai_fewshot.apps.command import segment as segment

__version__ = "0.1.0"

SUB_PACKAGES = [
    "apps",
    "data",
    "engines",
    "handlers",
    "inferers",
    "losses",
    "meta",
    "metrics",
    "networks",
    "transforms",
    "utils",
    "visualize",
    "workflows",
]


COMMANDS = {"refine": "annotation", "segment": "command", "suggest": "annotation"}


def __getattr__(name: str) -> Any:
    """Import a sub-package, or a command, when it is first asked for; a bundle just imports the package."""
    if name in SUB_PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in COMMANDS:
        return getattr(importlib.import_module(f"{__name__}.apps.{COMMANDS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
