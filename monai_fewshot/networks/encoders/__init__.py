# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .feature_encoder import FeatureEncoder
from .resnet_encoder import DilatedResNetEncoder
from .unet_encoder import UNetEncoder
from .vgg_encoder import VGG16Encoder
from .weights import WeightReport, load_encoder_weights

__all__ = [
    "DilatedResNetEncoder",
    "FeatureEncoder",
    "UNetEncoder",
    "VGG16Encoder",
    "WeightReport",
    "load_encoder_weights",
]
