# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .background_writing import BackgroundWriting
from .class_progress import ClassProgress
from .convergence_stop import ConvergenceStop
from .finite_loss import FiniteLoss
from .mask_quality import MaskQuality
from .mean_loss import MeanLossOverProcesses
from .network_loader import NetworkLoader
from .output_files import OutputFiles, finish_results, write_index
from .result_records import ResultRecord, ResultRecords
from .resumed_training import check_same_training
from .scan_results import ScanResults
from .teacher import Teacher
from .teacher_picture import TeacherPicture
from .total_progress import TotalProgress
from .training_checkpoints import BestModelSaver, FinalModelSaver, TrainingCheckpoints
from .volume_scores import VolumeScores, overall_metrics

__all__ = [
    "BackgroundWriting",
    "BestModelSaver",
    "ClassProgress",
    "ConvergenceStop",
    "FinalModelSaver",
    "FiniteLoss",
    "MaskQuality",
    "MeanLossOverProcesses",
    "NetworkLoader",
    "OutputFiles",
    "ResultRecord",
    "ResultRecords",
    "ScanResults",
    "Teacher",
    "TeacherPicture",
    "TotalProgress",
    "TrainingCheckpoints",
    "VolumeScores",
    "check_same_training",
    "finish_results",
    "overall_metrics",
    "write_index",
]
