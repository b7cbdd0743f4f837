# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .preparation import prepare_network
from .weights import WeightReport, load_encoder_weights

__all__ = ["WeightReport", "load_encoder_weights", "prepare_network"]
