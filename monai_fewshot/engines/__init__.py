# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .episode_evaluation import EpisodeEvaluation
from .fold_evaluation import FoldEvaluation
from .prepare_batch import PrepareBatchEpisode
from .saliency_refinement import SaliencyRefinement, write_masks

__all__ = ["EpisodeEvaluation", "FoldEvaluation", "PrepareBatchEpisode", "SaliencyRefinement", "write_masks"]
