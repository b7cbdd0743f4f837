# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .phantom import make_phantom_dataset, make_phantom_volume

__all__ = ["make_phantom_dataset", "make_phantom_volume"]
