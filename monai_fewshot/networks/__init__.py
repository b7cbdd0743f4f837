# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .network_preparation import prepare_network

__all__ = ["prepare_network"]
