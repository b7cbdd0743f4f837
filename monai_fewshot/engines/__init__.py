# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .episode_evaluation import EpisodeEvaluation
from .exemplar_training import ExemplarTraining, PrepareBatchSamples
from .fold_evaluation import FoldEvaluation
from .meta_trainer import MetaTrainer
from .prepare_batch import PrepareBatchEpisode, PrepareBatchTask
from .pseudo_labeling import pseudo_labels
from .saliency_refinement import SaliencyRefinement, write_masks

__all__ = [
    "EpisodeEvaluation",
    "ExemplarTraining",
    "FoldEvaluation",
    "MetaTrainer",
    "PrepareBatchEpisode",
    "PrepareBatchSamples",
    "PrepareBatchTask",
    "SaliencyRefinement",
    "pseudo_labels",
    "write_masks",
]
