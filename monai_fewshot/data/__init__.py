# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .episodes import AnnotatedEpisodes, Episodes, EpisodeSampler, PseudoLabelEpisodes
from .exclusion import class_numbers, slices_with_classes, training_slices
from .folds import Fold, cross_validation_folds, load_folds
from .scans import Scan, fingerprint_scans, load_class_names, load_scans
from .slices import SliceStack

__all__ = [
    "AnnotatedEpisodes",
    "EpisodeSampler",
    "Episodes",
    "Fold",
    "PseudoLabelEpisodes",
    "Scan",
    "SliceStack",
    "class_numbers",
    "cross_validation_folds",
    "fingerprint_scans",
    "load_class_names",
    "load_folds",
    "load_scans",
    "slices_with_classes",
    "training_slices",
]
