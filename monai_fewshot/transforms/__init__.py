# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .augmentation.affine_elastic import (
    RandAffineElastic,
    RandAffineElasticD,
    RandAffineElasticd,
    RandAffineElasticDict,
    WarpDraw,
)
from .augmentation.box_paste import BoxPaste, PasteDraw
from .augmentation.class_intensity import ClassIntensity
from .augmentation.color_jitter import (
    ColorDraw,
    RandColorJitter,
    RandColorJitterD,
    RandColorJitterd,
    RandColorJitterDict,
)
from .augmentation.episode_augmentation import AugmentationDraw, EpisodeAugmentation
from .augmentation.intensity_variation import IntensityDraw, IntensityVariation
from .augmentation.noise import uniform_noise
from .augmentation.warp import adjust_gamma, affine_matrices, elastic_displacement, warp
from .preparation.align_axes import AlignAxes, AlignAxesD, AlignAxesd, AlignAxesDict, run_alike
from .preparation.body_mask import BodyMask, BodyMaskD, BodyMaskd, BodyMaskDict
from .preparation.normalize_channels import NormalizeChannels
from .preparation.resize_in_plane import ResizeInPlane, ResizeInPlaneD, ResizeInPlaned, ResizeInPlaneDict
from .preparation.scan_preparation import CARDIAC_SPACING, ct_preparation, mr_preparation
from .pseudo_labels.boundary_saliency import boundary_saliency
from .pseudo_labels.field_of_view import field_of_view
from .pseudo_labels.mask_split import (
    MaskSplitDraw,
    RandMaskSplit,
    RandMaskSplitD,
    RandMaskSplitd,
    RandMaskSplitDict,
    SplitMode,
)
from .pseudo_labels.rectangles import (
    RandomRectangleLabels,
    RandomRectangleLabelsD,
    RandomRectangleLabelsd,
    RandomRectangleLabelsDict,
)
from .pseudo_labels.saliency_labels import (
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
from .pseudo_labels.spectral_residual import spectral_residual_saliency
from .pseudo_labels.superpixels import SuperpixelLabels, SuperpixelLabelsD, SuperpixelLabelsd, SuperpixelLabelsDict
from .pseudo_labels.supervoxels import SupervoxelLabels, SupervoxelLabelsD, SupervoxelLabelsd, SupervoxelLabelsDict
from .support_components import (
    ClassParts,
    KeepClassPartsD,
    KeepClassPartsd,
    KeepClassPartsDict,
    KeepSupportComponents,
    KeepSupportComponentsD,
    KeepSupportComponentsd,
    KeepSupportComponentsDict,
)
from .synthesis.exemplar_arrangement import ExemplarArrangement
from .synthesis.exemplar_pasting import class_centers
from .synthesis.exemplar_synthesis import (
    RandExemplarSynthesis,
    RandExemplarSynthesisD,
    RandExemplarSynthesisd,
    RandExemplarSynthesisDict,
    SynthesisDraw,
)
from .synthesis.surrogate_tasks import (
    Denoising,
    Inpainting,
    LocalShuffling,
    SurrogateTask,
    SurrogateTaskD,
    SurrogateTaskd,
    SurrogateTaskDict,
)

__all__ = [
    "CARDIAC_SPACING",
    "AlignAxes",
    "AlignAxesD",
    "AlignAxesDict",
    "AlignAxesd",
    "AugmentationDraw",
    "BodyMask",
    "BodyMaskD",
    "BodyMaskDict",
    "BodyMaskd",
    "BoxPaste",
    "ClassIntensity",
    "ClassParts",
    "ColorDraw",
    "Denoising",
    "EpisodeAugmentation",
    "ExemplarArrangement",
    "Inpainting",
    "IntensityDraw",
    "IntensityVariation",
    "KeepClassPartsD",
    "KeepClassPartsDict",
    "KeepClassPartsd",
    "KeepSupportComponents",
    "KeepSupportComponentsD",
    "KeepSupportComponentsDict",
    "KeepSupportComponentsd",
    "LocalShuffling",
    "MaskSplitDraw",
    "NormalizeChannels",
    "PasteDraw",
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
    "run_alike",
    "spectral_residual_saliency",
    "uniform_noise",
    "warp",
]
