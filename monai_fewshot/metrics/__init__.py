# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .score_summary import ScanScore, ScoreSummary, summarize
from .score_table import read_scores, write_scores
from .volume_scores import VolumeScore, score_volume

__all__ = ["ScanScore", "ScoreSummary", "VolumeScore", "read_scores", "score_volume", "summarize", "write_scores"]
