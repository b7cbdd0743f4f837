# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .episode_evaluation import EpisodeEvaluation
from .fold_evaluation import FoldEvaluation
from .folder_segmentation import FolderSegmentation
from .picture_segmentation import PictureSegmentation
from .saliency_refinement import SaliencyRefinement, write_masks
from .self_training import Streams, fit_schedule, self_training_streams
from .settings import check_settings
from .trained_model import GivenModel, ModelRecord, TrainedModel, class_parts
from .training import episode_loader, episode_trainer, episode_validator, start_run, training_handlers
from .volume_evaluation import VolumeEvaluation

__all__ = [
    "EpisodeEvaluation",
    "FoldEvaluation",
    "FolderSegmentation",
    "GivenModel",
    "ModelRecord",
    "PictureSegmentation",
    "SaliencyRefinement",
    "Streams",
    "TrainedModel",
    "VolumeEvaluation",
    "check_settings",
    "class_parts",
    "episode_loader",
    "episode_trainer",
    "episode_validator",
    "fit_schedule",
    "self_training_streams",
    "start_run",
    "training_handlers",
    "write_masks",
]
