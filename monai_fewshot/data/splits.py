# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from monai.config import PathLike

from .folds import Fold, load_folds
from .scans import Scan, load_scans

__all__ = ["get_fold", "hold_out", "training_scans"]

T = TypeVar("T")


def get_fold(dataset_dir: PathLike, fold: int, num_folds: int = 5) -> Fold:
    """Look up one fold of a data set.

    Args:
        dataset_dir: folder as for :func:`monai_fewshot.data.load_scans`.
        fold: its number, from 0.
        num_folds: number of folds where the data set names none.

    Raises:
        ValueError: where there is no such fold.
    """
    folds = load_folds(dataset_dir, num_folds)
    if not 0 <= fold < len(folds):
        raise ValueError(f"fold is {fold}; {dataset_dir} has {len(folds)} folds, 0 to {len(folds) - 1}.")
    return folds[fold]


def training_scans(dataset_dir: PathLike, fold: int | None = None, num_folds: int = 5) -> list[Scan]:
    """List the scans to train on.

    Args:
        dataset_dir: folder as for :func:`monai_fewshot.data.load_scans`.
        fold: number of the fold whose queries and support are left out; None for all scans.
        num_folds: number of folds where the data set names none.

    Raises:
        ValueError: where the fold leaves no scan to train on.
    """
    if fold is None:
        return load_scans(dataset_dir)
    names = get_fold(dataset_dir, fold, num_folds).train
    if not names:
        raise ValueError(f"Fold {fold} of {dataset_dir} leaves no scan to train on: use fewer folds or more scans.")
    return load_scans(dataset_dir, names=names)


def hold_out(scans: Sequence[T], number: int) -> tuple[list[T], list[T]]:
    """Set the last scans aside for validation.

    Args:
        scans: all scans.
        number: how many to set aside. With 0, validation sees the training scans, in other episodes.

    Returns:
        Scans to train on, and scans to validate on.

    Raises:
        ValueError: where no scan would be left to train on.
    """
    if not 0 <= number < len(scans):
        raise ValueError(
            f"{number} of {len(scans)} scans cannot be held out for validation: give more scans, or num_val_scans=0."
        )
    keep = len(scans) - number
    return list(scans[:keep]), list(scans[keep:] or scans)
