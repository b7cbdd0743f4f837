# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .autocast import AutocastInferer
from .class_inferer import ClassVolumeInferer
from .few_shot_inferer import FewShotVolumeInferer
from .mask_evidence import class_confidence, reverse_dice, volume_bounds
from .protocol import (
    PROTOCOLS,
    RANDOM_EPISODES,
    ExpectedSpan,
    QuerySlices,
    ScanReduction,
    SegmentationProtocol,
    SupportChoice,
    get_protocol,
    get_protocols,
)
from .registration_inferer import RegistrationInferer, ScanPlacement
from .scan_registration import ScanRegistration
from .volume_inferer import VolumeInferer, margin_spread

__all__ = [
    "PROTOCOLS",
    "RANDOM_EPISODES",
    "AutocastInferer",
    "ClassVolumeInferer",
    "ExpectedSpan",
    "FewShotVolumeInferer",
    "QuerySlices",
    "RegistrationInferer",
    "ScanPlacement",
    "ScanReduction",
    "ScanRegistration",
    "SegmentationProtocol",
    "SupportChoice",
    "VolumeInferer",
    "class_confidence",
    "get_protocol",
    "get_protocols",
    "margin_spread",
    "reverse_dice",
    "volume_bounds",
]
