# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from .row_table import RowTable

__all__ = ["CONFIDENCE_LINE", "QUALITY_TABLE", "REVERSE_LINE", "PredictedQuality", "QualityLine", "worst_qualities"]

CERTAIN = 0.01
"""Evidence is brought at least this far from 0 and 1, before its log-odds are taken."""
NINETY_PERCENT = 1.645
"""Standard deviations of a normal distribution that hold 90 % between them."""


@dataclass(frozen=True)
class PredictedQuality:
    """The Dice that a mask is expected to have, without its truth.

    Attributes:
        scan: its name.
        label: class number.
        name: of the class.
        predicted_dice: from 0 to 1; 0 for a class that is not found.
        low: lower end of an interval that holds 9 of 10 masks.
        high: its upper end.
        evidence: what it was predicted from, by a :class:`QualityLine`; NaN where it was not.
    """

    scan: str
    label: int
    name: str
    predicted_dice: float
    low: float
    high: float
    evidence: float = math.nan


QUALITY_TABLE = RowTable(PredictedQuality, "predicted qualities")
"""Reads and writes ``quality.csv``."""


def worst_qualities(rows: Iterable[PredictedQuality]) -> dict[str, PredictedQuality]:
    """Find the class of each scan that is predicted the lowest Dice.

    Args:
        rows: of any scans.

    Returns:
        Its row by name of the scan.
    """
    worst: dict[str, PredictedQuality] = {}
    for row in rows:
        if row.scan not in worst or row.predicted_dice < worst[row.scan].predicted_dice:
            worst[row.scan] = row
    return worst


@dataclass(frozen=True)
class QualityLine:
    r"""Predicts Dice from one number between 0 and 1, by a line between log-odds.

    .. math:: \mathrm{logit}(d) = a + b\,\mathrm{logit}(e) \pm s

    Args:
        intercept: a.
        slope: b.
        spread: standard deviation s of what the line misses.

    Example:
        >>> dice, low, high = QualityLine(0.0, 1.0, 0.5)(0.8)
        >>> round(dice, 3), round(low, 3), round(high, 3)
        (0.8, 0.637, 0.901)
    """

    intercept: float
    slope: float
    spread: float

    def __call__(self, evidence: float) -> tuple[float, float, float]:
        """Predict.

        Args:
            evidence: from 0 to 1; NaN for a class that is not found.

        Returns:
            Dice, and the ends of an interval that holds 9 of 10, all 0 for a class that is not found.
        """
        if math.isnan(evidence):
            return 0.0, 0.0, 0.0
        bounded = min(max(evidence, CERTAIN), 1 - CERTAIN)
        middle = self.intercept + self.slope * math.log(bounded / (1 - bounded))
        reach = NINETY_PERCENT * self.spread
        return _probability(middle), _probability(middle - reach), _probability(middle + reach)


CONFIDENCE_LINE = QualityLine(-1.12, 1.10, 0.79)
"""From the mean confidence in a mask (:func:`monai_fewshot.inferers.class_confidence`); fitted by
``benchmarks/predicted_quality.py`` on masks of self-training, of abdominal and cardiac MR and of skin lesions."""
REVERSE_LINE = QualityLine(0.61, 0.15, 1.04)
"""From the Dice of the annotated scan segmented after a mask (:func:`monai_fewshot.inferers.reverse_dice`)."""


def _probability(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))
