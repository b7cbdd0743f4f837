# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .affine_elastic import RandAffineElastic, RandAffineElasticD, RandAffineElasticd, RandAffineElasticDict, WarpDraw
from .body_mask import BodyMask, BodyMaskD, BodyMaskd, BodyMaskDict
from .color_jitter import ColorDraw, RandColorJitter, RandColorJitterD, RandColorJitterd, RandColorJitterDict
from .episode_augmentation import AugmentationDraw, EpisodeAugmentation
from .noise import uniform_noise
from .normalize_channels import NormalizeChannels
from .rectangles import (
    RandomRectangleLabels,
    RandomRectangleLabelsD,
    RandomRectangleLabelsd,
    RandomRectangleLabelsDict,
)
from .superpixels import SuperpixelLabels, SuperpixelLabelsD, SuperpixelLabelsd, SuperpixelLabelsDict
from .supervoxels import SupervoxelLabels, SupervoxelLabelsD, SupervoxelLabelsd, SupervoxelLabelsDict
from .warp import adjust_gamma, affine_matrices, elastic_displacement, warp

__all__ = [
    "AugmentationDraw",
    "BodyMask",
    "BodyMaskD",
    "BodyMaskDict",
    "BodyMaskd",
    "ColorDraw",
    "EpisodeAugmentation",
    "NormalizeChannels",
    "RandAffineElastic",
    "RandAffineElasticD",
    "RandAffineElasticDict",
    "RandAffineElasticd",
    "RandColorJitter",
    "RandColorJitterD",
    "RandColorJitterDict",
    "RandColorJitterd",
    "RandomRectangleLabels",
    "RandomRectangleLabelsD",
    "RandomRectangleLabelsDict",
    "RandomRectangleLabelsd",
    "SuperpixelLabels",
    "SuperpixelLabelsD",
    "SuperpixelLabelsDict",
    "SuperpixelLabelsd",
    "SupervoxelLabels",
    "SupervoxelLabelsD",
    "SupervoxelLabelsDict",
    "SupervoxelLabelsd",
    "WarpDraw",
    "adjust_gamma",
    "affine_matrices",
    "elastic_displacement",
    "uniform_noise",
    "warp",
]
