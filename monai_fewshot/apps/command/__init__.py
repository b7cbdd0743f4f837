# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .problems import ScanProblem as ScanProblem
    from .segmenting import SegmentedFolder as SegmentedFolder
    from .segmenting import segment as segment
    from .survey import Survey as Survey
    from .survey import survey_scans as survey_scans

__all__ = ["ScanProblem", "SegmentedFolder", "Survey", "segment", "survey_scans"]

MODULES = {
    "ScanProblem": "problems",
    "SegmentedFolder": "segmenting",
    "Survey": "survey",
    "segment": "segmenting",
    "survey_scans": "survey",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for, so that the command line shows its help at once."""
    if name in MODULES:
        return getattr(importlib.import_module(f"{__name__}.{MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
