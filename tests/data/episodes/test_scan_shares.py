# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest

from monai_fewshot.data import deal_out


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_everything_is_dealt_out_once_and_evenly(number):
    sizes = np.random.default_rng(0).integers(1, 100, 40).tolist()
    hands = deal_out(sizes, number)
    assert sorted(place for hand in hands for place in hand) == list(range(40))
    held = [sum(sizes[place] for place in hand) for hand in hands]
    assert max(held) <= 4 / 3 * sum(sizes) / number
    assert all(hand == sorted(hand) for hand in hands)


def test_a_scan_ten_times_as_large_holds_nobody_up():
    assert deal_out([10, *[1] * 12], 2) == [[0, 11], [*range(1, 11), 12]]


def test_scans_of_unknown_size_are_dealt_out_by_number():
    assert [len(hand) for hand in deal_out([0] * 7, 3)] == [3, 2, 2]
    assert deal_out([5], 2) == [[0], []]
