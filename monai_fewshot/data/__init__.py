# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .annotated_scans import annotated_classes, annotated_scans, trained_classes, unlabeled_scans
from .annotated_slices import AnnotatedSlices
from .check_scan import CheckScanD, CheckScand, CheckScanDict
from .checks import check_output_dir, check_scans
from .class_naming import name_classes
from .dicom_checks import series_problems
from .dicom_labels import read_segmentation, segmentation_names
from .dicom_reader import SeriesReader
from .dicom_seg import write_dicom_seg
from .dicom_series import DicomSeries, DicomTree, find_series, read_series, select_series, series_name
from .episodes import AnnotatedEpisodes, Episodes, PseudoLabelEpisodes
from .exclusion import class_numbers, slices_with_classes
from .exemplar_samples import ExemplarSamples
from .exemplars import BackgroundKind, background_images, choose_exemplars, organ_free_slices, take_slices
from .few_shot_folds import few_shot_fold_classes
from .folds import Fold, cross_validation_folds, load_folds
from .image_checks import CheckImageD, CheckImaged, CheckImageDict, check_images, image_reading
from .image_roles import (
    hold_out_images,
    random_support_folds,
    support_fold,
    support_images,
    with_pseudo_masks,
    without_labels,
)
from .image_sets import ImageSet, load_image_list, load_image_pools, load_image_set
from .image_volumes import IMAGE_AFFINE, ImageAsVolumeD, ImageAsVolumed, ImageAsVolumeDict
from .inference_scans import pending_scans, support_scans
from .load_scan import LoadScanD, LoadScand, LoadScanDict
from .mask_split_episodes import MaskSplitEpisodes
from .mask_writer import ImageMaskWriter, MaskWriter
from .numbered_samples import EpisodeSampler, NumberedSamples, numbered_random
from .scan_episodes import ScanEpisodes
from .scan_reading import prepare_scans, read_scans
from .scans import Scan, fingerprint_scans, load_class_names, load_scans
from .segment_codes import PRIVATE_SCHEME, SegmentCode, load_segment_codes, segment_code
from .slices import SliceStack
from .splits import choose_folds, hold_out, training_scans
from .surrogate_episodes import SurrogateEpisodes
from .task_episodes import TaskEpisodes, TaskPools

__all__ = [
    "IMAGE_AFFINE",
    "PRIVATE_SCHEME",
    "AnnotatedEpisodes",
    "AnnotatedSlices",
    "BackgroundKind",
    "CheckImageD",
    "CheckImageDict",
    "CheckImaged",
    "CheckScanD",
    "CheckScanDict",
    "CheckScand",
    "DicomSeries",
    "DicomTree",
    "EpisodeSampler",
    "Episodes",
    "ExemplarSamples",
    "Fold",
    "ImageAsVolumeD",
    "ImageAsVolumeDict",
    "ImageAsVolumed",
    "ImageMaskWriter",
    "ImageSet",
    "LoadScanD",
    "LoadScanDict",
    "LoadScand",
    "MaskSplitEpisodes",
    "MaskWriter",
    "NumberedSamples",
    "PseudoLabelEpisodes",
    "Scan",
    "ScanEpisodes",
    "SegmentCode",
    "SeriesReader",
    "SliceStack",
    "SurrogateEpisodes",
    "TaskEpisodes",
    "TaskPools",
    "annotated_classes",
    "annotated_scans",
    "background_images",
    "check_images",
    "check_output_dir",
    "check_scans",
    "choose_exemplars",
    "choose_folds",
    "class_numbers",
    "cross_validation_folds",
    "few_shot_fold_classes",
    "find_series",
    "fingerprint_scans",
    "hold_out",
    "hold_out_images",
    "image_reading",
    "load_class_names",
    "load_folds",
    "load_image_list",
    "load_image_pools",
    "load_image_set",
    "load_scans",
    "load_segment_codes",
    "name_classes",
    "numbered_random",
    "organ_free_slices",
    "pending_scans",
    "prepare_scans",
    "random_support_folds",
    "read_scans",
    "read_segmentation",
    "read_series",
    "segment_code",
    "segmentation_names",
    "select_series",
    "series_name",
    "series_problems",
    "slices_with_classes",
    "support_fold",
    "support_images",
    "support_scans",
    "take_slices",
    "trained_classes",
    "training_scans",
    "unlabeled_scans",
    "with_pseudo_masks",
    "without_labels",
    "write_dicom_seg",
]
