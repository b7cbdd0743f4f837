# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from monai.config import PathLike
from monai.utils import ensure_tuple

from .folds import Fold, load_folds
from .scan_folder import Scan, load_scans

__all__ = ["choose_folds", "hold_out", "one_fold", "run_name", "training_scans"]

T = TypeVar("T")


def choose_folds(dataset_dir: PathLike, fold: int | Sequence[int] | None = None, num_folds: int = 5) -> list[Fold]:
    """Look up folds of a data set by their numbers.

    Args:
        dataset_dir: folder as for :func:`monai_fewshot.data.load_scans`.
        fold: one number or several, from 0; None for all folds.
        num_folds: number of folds where the data set names none.

    Raises:
        ValueError: where there is no such fold.
    """
    folds = load_folds(dataset_dir, num_folds)
    numbers = range(len(folds)) if fold is None else ensure_tuple(fold)
    unknown = [number for number in numbers if number not in range(len(folds))]
    if unknown:
        raise ValueError(f"fold is {fold}; {dataset_dir} has {len(folds)} folds, 0 to {len(folds) - 1}.")
    return [folds[number] for number in numbers]


def one_fold(dataset_dir: PathLike, fold: int, num_folds: int = 5) -> Fold:
    """Look up the fold of a training, of which it leaves out the queries and the support.

    Args:
        dataset_dir: folder as for :func:`monai_fewshot.data.load_scans`.
        fold: its number, from 0.
        num_folds: number of folds where the data set names none.

    Raises:
        ValueError: where there is no such fold, or several are given.
    """
    if isinstance(fold, bool) or not isinstance(fold, int):
        raise ValueError(f"fold is {fold!r}: a training takes one fold, such as 0; train once for each of several.")
    return choose_folds(dataset_dir, fold, num_folds)[0]


def training_scans(
    dataset_dir: PathLike, fold: int | None = None, num_folds: int = 5, with_labels: bool = False
) -> list[Scan]:
    """List the scans to train on, by default without their labels.

    Args:
        dataset_dir: folder as for :func:`monai_fewshot.data.load_scans`.
        fold: number of the fold whose queries and support are left out; None for all scans.
        num_folds: number of folds where the data set names none.
        with_labels: whether every scan must have a label, which is then listed.

    Raises:
        ValueError: where the fold leaves no scan to train on.
    """
    names = None if fold is None else one_fold(dataset_dir, fold, num_folds).train
    if names is not None and not names:
        raise ValueError(f"Fold {fold} of {dataset_dir} leaves no scan to train on: use fewer folds or more scans.")
    scans = load_scans(dataset_dir, names=names, require_labels=with_labels)
    return scans if with_labels else [{key: scan[key] for key in ("name", "image")} for scan in scans]


def run_name(fold: int | None) -> str:
    """Name the folder of a training after its fold, ``fold0``; ``all_scans`` for a training on all of them."""
    return "all_scans" if fold is None else f"fold{fold}"


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
