# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike

from .scan_folder import DATASET_JSON, load_scans, read_dataset_json

__all__ = ["Fold", "cross_validation_folds", "load_folds"]


@dataclass(frozen=True)
class Fold:
    """Who is segmented, who is the example and who is trained on in one part of a cross-validation.

    Args:
        index: number of the fold, from 0.
        query: names of the scans to segment.
        support: names of the annotated scans; neither queries nor trained on.
        train: names of all other scans.
    """

    index: int
    query: tuple[str, ...]
    support: tuple[str, ...]
    train: tuple[str, ...]


def cross_validation_folds(names: Iterable[str], num_folds: int = 5) -> list[Fold]:
    """Divide scans into folds as the evaluations of SSL-ALPNet and its successors do.

    Names are sorted and cut into contiguous parts of equal size, the first ones longer by one where they do not divide
    evenly. A part is the query of its fold; the support is the first scan of the next part, or of the first part for
    the last fold.

    Based on: Ouyang et al., "Self-supervised Learning for Few-shot Medical Image Segmentation", TMI 2022,
    https://arxiv.org/abs/2007.09886, and its implementation.

    Args:
        names: names of the scans, in any order.
        num_folds: number of folds, at least 2, at most one a scan.

    Returns:
        The folds in order.

    Raises:
        ValueError: if the scans cannot make that many folds, or a name occurs twice.

    Example:
        >>> cross_validation_folds(["a", "b", "c", "d", "e"], num_folds=2)[0]
        Fold(index=0, query=('a', 'b', 'c'), support=('d',), train=('e',))
    """
    ordered = sorted(names)
    if len(set(ordered)) != len(ordered):
        raise ValueError(f"names: {_repeated(ordered)} occurs more than once; every scan needs its own name.")
    if not 2 <= num_folds <= len(ordered):
        raise ValueError(f"num_folds is {num_folds}; {len(ordered)} scans make at least 2 and at most {len(ordered)}.")
    parts = [tuple(part.tolist()) for part in np.array_split(np.array(ordered), num_folds)]
    return [
        _fold(index, query, support=parts[(index + 1) % num_folds][:1], names=ordered)
        for index, query in enumerate(parts)
    ]


def load_folds(dataset_dir: PathLike, num_folds: int = 5) -> list[Fold]:
    """Read the folds of a data set, or make them.

    ``folds`` of ``dataset.json``, where it is there, is a list of ``{"query": ["a", "b"], "support": "c"}``, or a list
    of several supports, and decides the number of folds too; else :func:`cross_validation_folds` divides the scans.
    All other scans are trained on, or those that the fold lists as ``train``, where it does: that leaves out further
    scans of the supports' patients.

    Args:
        dataset_dir: folder as for :func:`monai_fewshot.data.load_scans`.
        num_folds: number of folds where ``dataset.json`` has none.

    Returns:
        The folds in order.

    Raises:
        ValueError: if a fold is malformed, names a scan that the data set lacks, or has its support among its queries.
    """
    names = [scan["name"] for scan in load_scans(dataset_dir)]
    entries = read_dataset_json(dataset_dir).get("folds")
    if entries is None:
        return cross_validation_folds(names, num_folds)
    path = Path(dataset_dir).expanduser() / DATASET_JSON
    if not isinstance(entries, list) or not entries:
        raise ValueError(f'{path}: "folds" is {entries!r}; expected a list of folds, or no such key.')
    return [_checked_fold(path, index, entry, names) for index, entry in enumerate(entries)]


def _checked_fold(path: Path, index: int, entry: Any, names: list[str]) -> Fold:
    query, support = (entry.get("query"), entry.get("support")) if isinstance(entry, dict) else (None, None)
    support = [support] if isinstance(support, str) else support
    if not isinstance(query, list) or not query or not isinstance(support, list) or not support:
        raise ValueError(
            f'{path}: fold {index} is {entry!r}; expected {{"query": ["a", "b"], "support": "c"}} with names of scans.'
        )
    train = entry.get("train", [name for name in names if name not in {*query, *support}])
    if not isinstance(train, list):
        raise ValueError(
            f'{path}: "train" of fold {index} is {train!r}; expected a list of names of scans, or no such key.'
        )
    unknown = [name for name in [*query, *support, *train] if name not in names]
    if unknown:
        raise ValueError(
            f"{path}: fold {index} names {', '.join(map(str, unknown))}, which 'training' does not list; "
            "a scan is called after its image file, without suffix."
        )
    both = [name for name in support if name in query]
    if both:
        raise ValueError(
            f"{path}: fold {index} has its support {', '.join(both)} among its queries; take it out of one."
        )
    if held_out := [name for name in train if name in {*query, *support}]:
        raise ValueError(
            f"{path}: fold {index} trains on {', '.join(held_out)}, its query or support; take it out of one."
        )
    if len(set(query)) != len(query):
        raise ValueError(f"{path}: fold {index} has {_repeated(query)} among its queries more than once.")
    return Fold(index, tuple(query), tuple(support), tuple(train))


def _fold(index: int, query: tuple[str, ...], support: tuple[str, ...], names: list[str]) -> Fold:
    held_out = {*query, *support}
    return Fold(index, query, support, tuple(name for name in names if name not in held_out))


def _repeated(names: list[str]) -> str:
    return ", ".join(sorted({name for name in names if names.count(name) > 1}))
