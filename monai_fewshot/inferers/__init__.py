# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .autocast import AutocastInferer
from .protocol import PROTOCOLS, ExpectedSpan, Protocol, QuerySlices, ScanReduction, SupportChoice, get_protocol
from .volume_inferer import FewShotVolumeInferer

__all__ = [
    "PROTOCOLS",
    "AutocastInferer",
    "ExpectedSpan",
    "FewShotVolumeInferer",
    "Protocol",
    "QuerySlices",
    "ScanReduction",
    "SupportChoice",
    "get_protocol",
]
