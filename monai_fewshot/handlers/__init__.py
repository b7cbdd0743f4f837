# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .volume_scores import VolumeScores
from .training_checkpoints import BestModelSaver, TrainingCheckpoints

__all__ = ["BestModelSaver", "TrainingCheckpoints", "VolumeScores"]
