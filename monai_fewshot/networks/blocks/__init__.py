# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .prototypes import PrototypeSet, local_average, masked_average, prototype_similarity

__all__ = ["PrototypeSet", "local_average", "masked_average", "prototype_similarity"]
