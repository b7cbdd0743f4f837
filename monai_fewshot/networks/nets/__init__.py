# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .adnet import ADNet
from .alpnet import ALPNet
from .embedding_network import EmbeddingNetwork
from .few_shot_segmenter import FewShotSegmenter
from .masksplit_net import MaskSplitNet
from .meta_learned_segmenter import MetaLearnedSegmenter
from .mt_unet import MTUNet
from .panet import PANet
from .pixel_shuffle import PixelShuffleNetwork
from .prototype_segmenter import PrototypeSegmenter
from .se_net import FewShotSENet
from .surrogate_network import SurrogateNetwork
from .tiled_prototype_net import TiledPrototypeNet

__all__ = [
    "ADNet",
    "ALPNet",
    "EmbeddingNetwork",
    "FewShotSENet",
    "FewShotSegmenter",
    "MTUNet",
    "MaskSplitNet",
    "MetaLearnedSegmenter",
    "PANet",
    "PixelShuffleNetwork",
    "PrototypeSegmenter",
    "SurrogateNetwork",
    "TiledPrototypeNet",
]
