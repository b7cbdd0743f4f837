# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .check_scan import CheckScanD, CheckScand, CheckScanDict
from .checks import check_output_dir, check_scans
from .episodes import AnnotatedEpisodes, Episodes, EpisodeSampler, PseudoLabelEpisodes
from .exclusion import class_numbers, slices_with_classes
from .folds import Fold, cross_validation_folds, load_folds
from .inference_scans import pending_scans, support_scans
from .mask_writer import MaskWriter
from .scan_episodes import ScanEpisodes
from .scan_reading import prepare_scans, read_scans
from .scans import Scan, fingerprint_scans, load_class_names, load_scans
from .slices import SliceStack
from .splits import choose_folds, hold_out, training_scans

__all__ = [
    "AnnotatedEpisodes",
    "CheckScanD",
    "CheckScanDict",
    "CheckScand",
    "EpisodeSampler",
    "Episodes",
    "Fold",
    "MaskWriter",
    "PseudoLabelEpisodes",
    "Scan",
    "ScanEpisodes",
    "SliceStack",
    "check_output_dir",
    "check_scans",
    "choose_folds",
    "class_numbers",
    "cross_validation_folds",
    "fingerprint_scans",
    "hold_out",
    "load_class_names",
    "load_folds",
    "load_scans",
    "pending_scans",
    "prepare_scans",
    "read_scans",
    "slices_with_classes",
    "support_scans",
    "training_scans",
]
