# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .encoder_adapter import EncoderAdapter
from .feature_encoder import FeatureEncoder
from .resnet_encoder import DilatedResNetEncoder
from .unet_encoder import UNetEncoder
from .vgg_encoder import VGG16Encoder
from .weights import WeightReport, load_encoder_weights

__all__ = [
    "DilatedResNetEncoder",
    "EncoderAdapter",
    "FeatureEncoder",
    "UNetEncoder",
    "VGG16Encoder",
    "WeightReport",
    "load_encoder_weights",
]
