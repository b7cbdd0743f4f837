# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .dataset import make_phantom_dataset
from .images import make_phantom_lesions, make_phantom_shapes
from .study import make_phantom_studies
from .volume import make_phantom_volume

__all__ = [
    "make_phantom_dataset",
    "make_phantom_lesions",
    "make_phantom_shapes",
    "make_phantom_studies",
    "make_phantom_volume",
]
