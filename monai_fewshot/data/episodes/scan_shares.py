# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from monai_fewshot.utils import num_processes, process_rank

__all__ = ["deal_out", "own_share"]

Item = TypeVar("Item")


def own_share(items: Sequence[Item], sizes: Sequence[int]) -> list[Item]:
    """Return the items that this process of a group works on, in their order; all of them outside of a group.

    Args:
        items: the same in all processes.
        sizes: of each item.
    """
    return [items[place] for place in deal_out(sizes, num_processes())[process_rank()]]


def deal_out(sizes: Sequence[int], number: int) -> list[list[int]]:
    """Deal out items of different sizes, so that all hands finish at about the same time.

    The largest item goes first, each to the hand that holds least.

    Based on: Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM Journal on Applied Mathematics 17(2), 1969: the
    fullest hand holds at most 4/3 of what the best dealing gives it.

    Args:
        sizes: of the items.
        number: of hands.

    Returns:
        Places of the items of each hand, ascending.

    Example:
        >>> deal_out([1, 1, 10, 1, 1, 1, 1, 1, 1, 1, 1], 2)
        [[2], [0, 1, 3, 4, 5, 6, 7, 8, 9, 10]]
    """
    hands: list[list[int]] = [[] for _ in range(number)]
    held = [0] * number
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        hand = held.index(min(held))
        hands[hand].append(place)
        held[hand] += max(sizes[place], 1)
    return [sorted(hand) for hand in hands]
