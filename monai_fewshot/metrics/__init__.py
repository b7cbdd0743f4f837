# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .measurements import (
    Measurement,
    axial_axis,
    largest_axial_diameter,
    measure,
    read_measurements,
    write_measurements,
)
from .score_summary import ScanScore, ScoreSummary, summarize
from .score_table import read_scores, write_scores
from .volume_scores import VolumeScore, score_volume

__all__ = [
    "Measurement",
    "ScanScore",
    "ScoreSummary",
    "VolumeScore",
    "axial_axis",
    "largest_axial_diameter",
    "measure",
    "read_measurements",
    "read_scores",
    "score_volume",
    "summarize",
    "write_measurements",
    "write_scores",
]
