# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .exemplar_training import ExemplarTraining, PrepareBatchSamples
from .meta_trainer import MetaTrainer
from .prepare_batch import PrepareBatchEpisode
from .pseudo_labeling import pseudo_labels
from .self_trainer import SelfTrainer

__all__ = [
    "ExemplarTraining",
    "MetaTrainer",
    "PrepareBatchEpisode",
    "PrepareBatchSamples",
    "SelfTrainer",
    "pseudo_labels",
]
