# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .episodes import TrainingOutput, TrainingTarget, check_episode, repeat_episodes
from .image_norm import ImageNorm, with_image_norm
from .logits import class_masks, foreground_logits
from .mixed_attention import ExternalAttention, GaussianAxialAttention, LocalWindowAttention, gaussian_axial_attention
from .mixed_transformer import (
    LocalGlobalAttention,
    MixedTransformerBlock,
    WindowSummary,
    join_windows,
    partition_windows,
)
from .prototypes import (
    PrototypeSet,
    class_similarity,
    local_average,
    masked_average,
    prototype_similarity,
    shot_averages,
)
from .resize import linear_resize, linear_resize_adjoint
from .upsampling_decoder import UpsamplingDecoder

__all__ = [
    "ExternalAttention",
    "GaussianAxialAttention",
    "ImageNorm",
    "LocalGlobalAttention",
    "LocalWindowAttention",
    "MixedTransformerBlock",
    "PrototypeSet",
    "TrainingOutput",
    "TrainingTarget",
    "UpsamplingDecoder",
    "WindowSummary",
    "check_episode",
    "class_masks",
    "class_similarity",
    "foreground_logits",
    "gaussian_axial_attention",
    "join_windows",
    "linear_resize",
    "linear_resize_adjoint",
    "local_average",
    "masked_average",
    "partition_windows",
    "prototype_similarity",
    "repeat_episodes",
    "shot_averages",
    "with_image_norm",
]
