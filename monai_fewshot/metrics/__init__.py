# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .mask_agreement import MaskAgreement, MaskAgreementMetric, compute_mask_agreement
from .measurements import (
    Measurement,
    add_measurements,
    axial_axis,
    largest_axial_diameter,
    measure,
    read_measurements,
    write_measurements,
)
from .score_summary import FAILED_DICE, ScanScore, ScoreSummary, distance_unit, summarize
from .score_table import read_scores, write_scores

__all__ = [
    "FAILED_DICE",
    "MaskAgreement",
    "MaskAgreementMetric",
    "Measurement",
    "ScanScore",
    "ScoreSummary",
    "add_measurements",
    "axial_axis",
    "compute_mask_agreement",
    "distance_unit",
    "largest_axial_diameter",
    "measure",
    "read_measurements",
    "read_scores",
    "summarize",
    "write_measurements",
    "write_scores",
]
