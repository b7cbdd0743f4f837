# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .class_progress import ClassProgress
from .convergence_stop import ConvergenceStop
from .finite_loss import FiniteLoss
from .mask_quality import MaskQuality
from .mean_loss import MeanLossOverProcesses
from .network_loader import NetworkLoader
from .output_files import OutputFiles, write_index
from .resumed_training import check_same_training
from .scan_results import ScanResults
from .teacher import Teacher
from .teacher_picture import TeacherPicture
from .total_progress import TotalProgress
from .training_checkpoints import BestModelSaver, FinalModelSaver, TrainingCheckpoints
from .volume_scores import VolumeScores, overall_metrics

__all__ = [
    "BestModelSaver",
    "ClassProgress",
    "ConvergenceStop",
    "FinalModelSaver",
    "FiniteLoss",
    "MaskQuality",
    "MeanLossOverProcesses",
    "NetworkLoader",
    "OutputFiles",
    "ScanResults",
    "Teacher",
    "TeacherPicture",
    "TotalProgress",
    "TrainingCheckpoints",
    "VolumeScores",
    "check_same_training",
    "overall_metrics",
    "write_index",
]
