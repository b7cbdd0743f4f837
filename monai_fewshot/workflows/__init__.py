# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .episode_evaluation import EpisodeEvaluation
from .fold_evaluation import FoldEvaluation
from .saliency_refinement import SaliencyRefinement, write_masks

__all__ = [
    "EpisodeEvaluation",
    "FoldEvaluation",
    "SaliencyRefinement",
    "write_masks",
]
