# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .mask_agreement import MaskAgreement, MaskAgreementMetric, compute_mask_agreement
from .measurements import MEASUREMENT_TABLE, Measurement, axial_axis, largest_axial_diameter, measure
from .predicted_quality import (
    CONFIDENCE_LINE,
    QUALITY_TABLE,
    REVERSE_LINE,
    PredictedQuality,
    QualityLine,
    worst_qualities,
)
from .row_table import RowTable
from .score_summary import FAILED_DICE, ScanScore, ScoreSummary, distance_unit, summarize
from .score_table import read_scores, write_scores

__all__ = [
    "CONFIDENCE_LINE",
    "FAILED_DICE",
    "MEASUREMENT_TABLE",
    "QUALITY_TABLE",
    "REVERSE_LINE",
    "MaskAgreement",
    "MaskAgreementMetric",
    "Measurement",
    "PredictedQuality",
    "QualityLine",
    "RowTable",
    "ScanScore",
    "ScoreSummary",
    "axial_axis",
    "compute_mask_agreement",
    "distance_unit",
    "largest_axial_diameter",
    "measure",
    "read_scores",
    "summarize",
    "worst_qualities",
    "write_scores",
]
