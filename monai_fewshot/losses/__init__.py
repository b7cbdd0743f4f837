# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .alignment import AlignmentLoss, EpisodeLoss
from .exemplar import ClassLoss, ExemplarLoss
from .log_cosh_dice import DiceBCELoss, LogCoshDiceLoss
from .present_classes import PresentClassesLoss
from .prototype_contrast import PrototypeContrastLoss
from .surrogate import SurrogateLoss

__all__ = [
    "AlignmentLoss",
    "ClassLoss",
    "DiceBCELoss",
    "EpisodeLoss",
    "ExemplarLoss",
    "LogCoshDiceLoss",
    "PresentClassesLoss",
    "PrototypeContrastLoss",
    "SurrogateLoss",
]
