# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Few-shot medical image segmentation for MONAI."""

from __future__ import annotations

import importlib
from types import ModuleType

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


def __getattr__(name: str) -> ModuleType:
    """Import a sub-package when it is first asked for, so that a bundle needs no more than ``import monai_fewshot``."""
    if name in SUB_PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
