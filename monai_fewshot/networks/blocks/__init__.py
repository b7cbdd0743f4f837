# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .logits import foreground_logits, one_hot
from .prototypes import PrototypeSet, local_average, masked_average, prototype_similarity
from .resize import linear_resize
from .upsampling_decoder import UpsamplingDecoder

__all__ = [
    "PrototypeSet",
    "UpsamplingDecoder",
    "foreground_logits",
    "linear_resize",
    "local_average",
    "masked_average",
    "one_hot",
    "prototype_similarity",
]
