# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

__all__ = ["Comparison", "compare_paired"]


@dataclass(frozen=True)
class Comparison:
    """Two rows on the same scans.

    Attributes:
        pairs: scans that both have.
        gain: mean difference.
        p_value: of the two-sided Wilcoxon signed-rank test, NaN where there is no difference to test.
    """

    pairs: int
    gain: float
    p_value: float


def compare_paired(ours: Mapping[str, float], reference: Mapping[str, float]) -> Comparison:
    """Test whether one row beats another on the same scans.

    The Wilcoxon signed-rank test's null hypothesis is that differences are symmetric about zero. Its unit is the scan,
    averaged over classes and seeds beforehand, since classes of one scan and repeated trainings are no independent
    samples. Few scans cannot give small values: five pairs no less than 0.0625.

    Based on: Wilcoxon, "Individual Comparisons by Ranking Methods", 1945; :func:`scipy.stats.wilcoxon`.

    Args:
        ours: value by scan.
        reference: likewise; scans that only one has do not count, nor do NaN.

    Returns:
        The comparison.

    Example:
        >>> compare_paired(dict(a=0.8, b=0.7, c=0.9), dict(a=0.7, b=0.5, c=0.6, d=0.5))
        Comparison(pairs=3, gain=0.2, p_value=0.25)
    """
    names = [name for name in ours if name in reference and not math.isnan(ours[name] - reference[name])]
    differences = np.array([ours[name] - reference[name] for name in names]).round(9)
    if not differences.any():
        return Comparison(len(names), 0.0 if names else math.nan, math.nan)
    return Comparison(len(names), round(float(differences.mean()), 9), float(wilcoxon(differences).pvalue))
