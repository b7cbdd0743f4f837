# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .alignment import AlignmentLoss, EpisodeLoss
from .surrogate import SurrogateLoss

__all__ = ["AlignmentLoss", "EpisodeLoss", "SurrogateLoss"]
