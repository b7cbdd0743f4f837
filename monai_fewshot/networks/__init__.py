# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .continued_network import start_from
from .network_preparation import average_gradients, prepare_network

__all__ = ["average_gradients", "prepare_network", "start_from"]
