# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

__all__ = ["deviation_of_defined", "markdown_table", "mean_of_defined"]


def mean_of_defined(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN, NaN where none is."""
    defined = [value for value in values if not math.isnan(value)]
    return statistics.fmean(defined) if defined else math.nan


def deviation_of_defined(values: Iterable[float]) -> float | None:
    """Sample standard deviation of the values that are not NaN, None of fewer than two."""
    defined = [value for value in values if not math.isnan(value)]
    return statistics.stdev(defined) if len(defined) > 1 else None


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Table in Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
    return "\n".join(lines)
