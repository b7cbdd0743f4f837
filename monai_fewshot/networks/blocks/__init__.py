# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .image_norm import ImageNorm, with_image_norm
from .logits import class_masks, foreground_logits
from .prototypes import PrototypeSet, local_average, masked_average, prototype_similarity, shot_averages
from .resize import linear_resize
from .upsampling_decoder import UpsamplingDecoder

__all__ = [
    "ImageNorm",
    "PrototypeSet",
    "UpsamplingDecoder",
    "class_masks",
    "foreground_logits",
    "linear_resize",
    "local_average",
    "masked_average",
    "prototype_similarity",
    "shot_averages",
    "with_image_norm",
]
