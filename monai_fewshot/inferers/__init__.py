# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .autocast import AutocastInferer
from .class_inferer import ClassVolumeInferer
from .protocol import (
    PROTOCOLS,
    RANDOM_EPISODES,
    ExpectedSpan,
    Protocol,
    QuerySlices,
    ScanReduction,
    SupportChoice,
    get_protocol,
    get_protocols,
)
from .registration_inferer import RegistrationInferer, ScanPlacement
from .scan_registration import ScanRegistration
from .volume_inferer import FewShotVolumeInferer

__all__ = [
    "PROTOCOLS",
    "RANDOM_EPISODES",
    "AutocastInferer",
    "ClassVolumeInferer",
    "ExpectedSpan",
    "FewShotVolumeInferer",
    "Protocol",
    "QuerySlices",
    "RegistrationInferer",
    "ScanPlacement",
    "ScanReduction",
    "ScanRegistration",
    "SupportChoice",
    "get_protocol",
    "get_protocols",
]
