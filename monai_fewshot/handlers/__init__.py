# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .network_loader import NetworkLoader
from .training_checkpoints import BestModelSaver, TrainingCheckpoints
from .volume_scores import VolumeScores

__all__ = ["BestModelSaver", "NetworkLoader", "TrainingCheckpoints", "VolumeScores"]
