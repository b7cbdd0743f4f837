# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .prototypes import PrototypeSet, local_average, masked_average, prototype_similarity
from .resize import linear_resize

__all__ = ["PrototypeSet", "linear_resize", "local_average", "masked_average", "prototype_similarity"]
