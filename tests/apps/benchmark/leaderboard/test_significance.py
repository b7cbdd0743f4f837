# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from monai_fewshot.apps.benchmark.leaderboard.significance import compare_paired


def exact_p(differences):
    """Two-sided p-value of the signed-rank statistic by going through all signs."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    middle = ranks.sum() / 2
    seen = abs(ranks[np.array(differences) > 0].sum() - middle)
    sums = [
        sum(r for r, sign in zip(ranks, signs, strict=True) if sign)
        for signs in itertools.product((0, 1), repeat=len(ranks))
    ]
    return float(np.mean([abs(total - middle) >= seen for total in sums]))


@pytest.mark.parametrize("seed", range(3))
def test_the_value_is_that_of_all_signs(seed):
    random = np.random.default_rng(seed)
    reference = dict(enumerate(random.normal(size=9)))
    ours = {name: value + random.normal(0.5) for name, value in reference.items()}
    found = compare_paired(ours, reference)
    differences = [ours[name] - reference[name] for name in reference]
    assert found.pairs == 9
    assert found.gain == pytest.approx(np.mean(differences))
    assert found.p_value == pytest.approx(exact_p(differences))


def test_only_what_both_define_is_compared():
    found = compare_paired({"a": 2.0, "b": math.nan, "c": 3.0, "d": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0, "e": 0.0})
    assert (found.pairs, found.gain) == (2, 1.5)


def test_rows_that_are_the_same_have_no_value():
    found = compare_paired({"a": 0.1 + 0.2}, {"a": 0.3})
    assert (found.pairs, found.gain) == (1, 0.0)
    assert math.isnan(found.p_value)
    assert compare_paired({}, {"a": 1.0}).pairs == 0
