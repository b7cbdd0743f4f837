# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

__all__ = ["Choice", "choose_by_coverage"]


class Choice(NamedTuple):
    """An item that was chosen.

    Attributes:
        item: its number.
        distance: to the nearest of what was annotated or chosen before it; infinite where nothing was.
        alike: number of other items that are nearer to it than to anything annotated or chosen before it.
    """

    item: int
    distance: float
    alike: int


def choose_by_coverage(
    distances: np.ndarray,
    number: int,
    annotated: Collection[int] = (),
    need: np.ndarray | None = None,
    candidates: Collection[int] | None = None,
) -> list[Choice]:
    r"""Choose items one by one, each the one that brings what is annotated nearest to all items.

    .. math:: \arg\max_j \sum_i w_i \max(0, d_i - D_{ij})

    where D are distances, d those to the nearest annotated or chosen item and w the need of each item. An item in the
    middle of many others that are far from all that is annotated, and whose need is great, comes first; then d is
    updated. While nothing is annotated, d is the greatest of all distances, so that the first one is the medoid.

    Based on: the first phase (BUILD) of Kaufman and Rousseeuw's k-medoids, Finding Groups in Data, 1990, chapter 2.

    Args:
        distances: (n, n), symmetric, with zeros on the diagonal.
        number: how many to choose.
        annotated: items that are annotated already.
        need: (n,), how much each item needs help, from 0; None for equal needs.
        candidates: items that may be chosen; None for all.

    Returns:
        The choices in their order, fewer where there are no more candidates.

    Example:
        >>> places = np.array([0.0, 1.0, 2.0, 9.0, 10.0])
        >>> [choice.item for choice in choose_by_coverage(np.abs(places[:, None] - places), 2)]
        [2, 3]
    """
    needs = np.ones(len(distances)) if need is None else np.asarray(need, float)
    taken = set(annotated)
    left = [item for item in (range(len(distances)) if candidates is None else candidates) if item not in taken]
    known = sorted(taken)
    nearest = distances[:, known].min(1) if known else np.full(len(distances), distances.max(initial=0.0))
    choices: list[Choice] = []
    while left and len(choices) < number:
        gains = [(needs * np.clip(nearest - distances[:, item], 0, None)).sum() for item in left]
        item = left.pop(int(np.argmax(gains)))
        is_first = not known and not choices
        alike = int((distances[:, item] < nearest).sum()) - int(nearest[item] > 0)
        choices.append(Choice(item, np.inf if is_first else float(nearest[item]), alike))
        nearest = np.minimum(nearest, distances[:, item])
    return choices
