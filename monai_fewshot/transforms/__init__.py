# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .affine_elastic import RandAffineElastic, RandAffineElasticD, RandAffineElasticd, RandAffineElasticDict, WarpDraw
from .body_mask import BodyMask, BodyMaskD, BodyMaskd, BodyMaskDict
from .episode_augmentation import AugmentationDraw, EpisodeAugmentation
from .superpixels import SuperpixelLabels, SuperpixelLabelsD, SuperpixelLabelsd, SuperpixelLabelsDict
from .warp import adjust_gamma, affine_matrices, elastic_displacement, warp

__all__ = [
    "AugmentationDraw",
    "BodyMask",
    "BodyMaskD",
    "BodyMaskDict",
    "BodyMaskd",
    "EpisodeAugmentation",
    "RandAffineElastic",
    "RandAffineElasticD",
    "RandAffineElasticDict",
    "RandAffineElasticd",
    "SuperpixelLabels",
    "SuperpixelLabelsD",
    "SuperpixelLabelsDict",
    "SuperpixelLabelsd",
    "WarpDraw",
    "adjust_gamma",
    "affine_matrices",
    "elastic_displacement",
    "warp",
]
