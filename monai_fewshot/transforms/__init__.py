# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .affine_elastic import RandAffineElastic, RandAffineElasticD, RandAffineElasticd, RandAffineElasticDict, WarpDraw
from .body_mask import BodyMask, BodyMaskD, BodyMaskd, BodyMaskDict
from .boundary_saliency import boundary_saliency
from .color_jitter import ColorDraw, RandColorJitter, RandColorJitterD, RandColorJitterd, RandColorJitterDict
from .episode_augmentation import AugmentationDraw, EpisodeAugmentation
from .exemplar_arrangement import ExemplarArrangement
from .exemplar_pasting import class_centers
from .exemplar_synthesis import (
    RandExemplarSynthesis,
    RandExemplarSynthesisD,
    RandExemplarSynthesisd,
    RandExemplarSynthesisDict,
    SynthesisDraw,
)
from .field_of_view import field_of_view
from .intensity_variation import IntensityDraw, IntensityVariation
from .mask_split import (
    MaskSplitDraw,
    RandMaskSplit,
    RandMaskSplitD,
    RandMaskSplitd,
    RandMaskSplitDict,
    SplitMode,
)
from .noise import uniform_noise
from .normalize_channels import NormalizeChannels
from .rectangles import (
    RandomRectangleLabels,
    RandomRectangleLabelsD,
    RandomRectangleLabelsd,
    RandomRectangleLabelsDict,
)
from .resize_in_plane import ResizeInPlane, ResizeInPlaneD, ResizeInPlaned, ResizeInPlaneDict
from .saliency_labels import (
    SaliencyLabels,
    SaliencyLabelsD,
    SaliencyLabelsd,
    SaliencyLabelsDict,
    SaliencyMap,
    SaliencyMapD,
    SaliencyMapd,
    SaliencyMapDict,
    clean_saliency,
)
from .scan_preparation import CARDIAC_SPACING, ct_preparation, mr_preparation
from .spectral_residual import spectral_residual_saliency
from .superpixels import SuperpixelLabels, SuperpixelLabelsD, SuperpixelLabelsd, SuperpixelLabelsDict
from .supervoxels import SupervoxelLabels, SupervoxelLabelsD, SupervoxelLabelsd, SupervoxelLabelsDict
from .surrogate_tasks import (
    Denoising,
    Inpainting,
    LocalShuffling,
    SurrogateTask,
    SurrogateTaskD,
    SurrogateTaskd,
    SurrogateTaskDict,
)
from .warp import adjust_gamma, affine_matrices, elastic_displacement, warp

__all__ = [
    "CARDIAC_SPACING",
    "AugmentationDraw",
    "BodyMask",
    "BodyMaskD",
    "BodyMaskDict",
    "BodyMaskd",
    "ColorDraw",
    "Denoising",
    "EpisodeAugmentation",
    "ExemplarArrangement",
    "Inpainting",
    "IntensityDraw",
    "IntensityVariation",
    "LocalShuffling",
    "MaskSplitDraw",
    "NormalizeChannels",
    "RandAffineElastic",
    "RandAffineElasticD",
    "RandAffineElasticDict",
    "RandAffineElasticd",
    "RandColorJitter",
    "RandColorJitterD",
    "RandColorJitterDict",
    "RandColorJitterd",
    "RandExemplarSynthesis",
    "RandExemplarSynthesisD",
    "RandExemplarSynthesisDict",
    "RandExemplarSynthesisd",
    "RandMaskSplit",
    "RandMaskSplitD",
    "RandMaskSplitDict",
    "RandMaskSplitd",
    "RandomRectangleLabels",
    "RandomRectangleLabelsD",
    "RandomRectangleLabelsDict",
    "RandomRectangleLabelsd",
    "ResizeInPlane",
    "ResizeInPlaneD",
    "ResizeInPlaneDict",
    "ResizeInPlaned",
    "SaliencyLabels",
    "SaliencyLabelsD",
    "SaliencyLabelsDict",
    "SaliencyLabelsd",
    "SaliencyMap",
    "SaliencyMapD",
    "SaliencyMapDict",
    "SaliencyMapd",
    "SplitMode",
    "SuperpixelLabels",
    "SuperpixelLabelsD",
    "SuperpixelLabelsDict",
    "SuperpixelLabelsd",
    "SupervoxelLabels",
    "SupervoxelLabelsD",
    "SupervoxelLabelsDict",
    "SupervoxelLabelsd",
    "SurrogateTask",
    "SurrogateTaskD",
    "SurrogateTaskDict",
    "SurrogateTaskd",
    "SynthesisDraw",
    "WarpDraw",
    "adjust_gamma",
    "affine_matrices",
    "boundary_saliency",
    "class_centers",
    "clean_saliency",
    "ct_preparation",
    "elastic_displacement",
    "field_of_view",
    "mr_preparation",
    "spectral_residual_saliency",
    "uniform_noise",
    "warp",
]
