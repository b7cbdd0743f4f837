# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .annotations.segmentation_reader import read_segmentation, segmentation_names
from .annotations.slicer_writer import write_seg_nrrd
from .dicom.segment_codes import PRIVATE_SCHEME, SegmentCode, load_segment_codes, segment_code
from .dicom.segmentation_writer import write_dicom_seg
from .dicom.series import DicomSeries, DicomTree, find_series, read_series, select_series, series_name
from .dicom.series_checks import series_problems
from .dicom.series_reader import SeriesReader
from .episodes.acquired_scans import AcquiredScans
from .episodes.annotated_episodes import AnnotatedEpisodes
from .episodes.annotated_slices import AnnotatedSlices, choose_annotated
from .episodes.episodes import Episodes, collate_episodes
from .episodes.exemplar_samples import ExemplarSamples
from .episodes.exemplars import BackgroundKind, background_images, choose_exemplars, organ_free_slices, take_slices
from .episodes.mask_split_episodes import MaskSplitEpisodes
from .episodes.numbered_samples import EpisodeSampler, NumberedSamples, numbered_random
from .episodes.pseudo_label_episodes import PseudoLabelEpisodes
from .episodes.read_ahead import OneAtATime, ReadAhead, readers_for
from .episodes.scan_episodes import ScanEpisodes
from .episodes.scan_shares import deal_out, own_share
from .episodes.surrogate_episodes import SurrogateEpisodes
from .episodes.task_episodes import TaskEpisodes, TaskPools
from .episodes.unlabeled_slices import UnlabeledSlices
from .files.scan_headers import check_headers
from .images.few_shot_folds import few_shot_fold_classes
from .images.image_checks import CheckImageD, CheckImaged, CheckImageDict, check_images, image_reading
from .images.image_roles import (
    hold_out_images,
    random_support_folds,
    support_fold,
    support_images,
    with_pseudo_masks,
    without_labels,
)
from .images.image_sets import ImageSet, load_image_list, load_image_pools, load_image_set
from .images.image_volumes import IMAGE_AFFINE, ImageAsVolumeD, ImageAsVolumed, ImageAsVolumeDict
from .images.picture_preparation import PicturePreparation
from .scans.annotated_scans import (
    add_seed_labels,
    annotated_classes,
    annotated_scans,
    shown_classes,
    unlabeled_scans,
)
from .scans.check_scan import CheckScanD, CheckScand, CheckScanDict
from .scans.check_scans import check_output_dir, check_scans
from .scans.class_naming import name_classes
from .scans.class_numbers import class_numbers, slices_with_classes
from .scans.folds import Fold, cross_validation_folds, load_folds
from .scans.inference_scans import pending_scans, support_scans
from .scans.load_scan import LoadScanD, LoadScand, LoadScanDict
from .scans.mask_writer import ImageMaskWriter, MaskWriter
from .scans.scan_facts import ScanFacts, read_scan_facts
from .scans.scan_folder import Scan, fingerprint_scans, load_class_names, load_scans
from .scans.scan_reading import prepare_scans, read_scans
from .scans.splits import choose_folds, hold_out, run_name, training_scans
from .scans.volume_preparation import VolumePreparation, count_channels, holds_picture, scan_axes
from .slices.slice_stack import SliceStack, training_stacks

__all__ = [
    "IMAGE_AFFINE",
    "PRIVATE_SCHEME",
    "AcquiredScans",
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
    "OneAtATime",
    "PicturePreparation",
    "PseudoLabelEpisodes",
    "ReadAhead",
    "Scan",
    "ScanEpisodes",
    "ScanFacts",
    "SegmentCode",
    "SeriesReader",
    "SliceStack",
    "SurrogateEpisodes",
    "TaskEpisodes",
    "TaskPools",
    "UnlabeledSlices",
    "VolumePreparation",
    "add_seed_labels",
    "annotated_classes",
    "annotated_scans",
    "background_images",
    "check_headers",
    "check_images",
    "check_output_dir",
    "check_scans",
    "choose_annotated",
    "choose_exemplars",
    "choose_folds",
    "class_numbers",
    "collate_episodes",
    "count_channels",
    "cross_validation_folds",
    "deal_out",
    "few_shot_fold_classes",
    "find_series",
    "fingerprint_scans",
    "hold_out",
    "hold_out_images",
    "holds_picture",
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
    "own_share",
    "pending_scans",
    "prepare_scans",
    "random_support_folds",
    "read_scan_facts",
    "read_scans",
    "read_segmentation",
    "read_series",
    "readers_for",
    "run_name",
    "scan_axes",
    "segment_code",
    "segmentation_names",
    "select_series",
    "series_name",
    "series_problems",
    "shown_classes",
    "slices_with_classes",
    "support_fold",
    "support_images",
    "support_scans",
    "take_slices",
    "training_scans",
    "training_stacks",
    "unlabeled_scans",
    "with_pseudo_masks",
    "without_labels",
    "write_dicom_seg",
    "write_seg_nrrd",
]
