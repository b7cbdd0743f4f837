# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest

from monai_fewshot.metrics import ScanScore, summarize

NAN = math.nan


def score(fold, scan, number, dice, hd95=5.0, protocol="alpnet"):
    return ScanScore(fold, scan, number, f"organ {number}", protocol, dice, hd95, "mm", 9, 30, 5000, 5100)


def find(rows, protocol="alpnet", fold=None, number=None):
    (row,) = [r for r in rows if (r.protocol, r.fold, r.class_number) == (protocol, fold, number)]
    return row


UNEVEN = [
    score(0, "a", 1, 0.9, 2.0),
    score(0, "b", 1, 0.7, 4.0),
    score(0, "c", 1, 0.2, 30.0),
    score(0, "a", 2, 0.5, NAN),
    score(1, "d", 1, 0.4, 8.0),
    score(1, "d", 2, NAN, NAN),
    score(1, "e", 2, 0.8, 3.0),
]


def test_scans_then_classes_then_folds():
    rows = summarize(UNEVEN)
    fold_0, fold_1 = np.mean([np.mean([0.9, 0.7, 0.2]), 0.5]), np.mean([0.4, 0.8])
    assert find(rows, fold=0, number=1).dice == pytest.approx(0.6)
    assert find(rows, fold=0).dice == pytest.approx(fold_0)
    assert find(rows, fold=1).dice == pytest.approx(fold_1)
    assert find(rows, number=1).dice == pytest.approx(np.mean([0.6, 0.4]))
    assert find(rows).dice == pytest.approx(np.mean([fold_0, fold_1]))
    assert find(rows).dice != pytest.approx(np.nanmean([s.dice for s in UNEVEN]))
    assert find(rows).hd95 == pytest.approx(np.mean([12, np.mean([8, 3])]))


def test_median_over_scans_only():
    rows = summarize(UNEVEN, {"alpnet": "median"})
    assert find(rows, fold=0, number=1).dice == pytest.approx(0.7)
    assert find(rows).dice == pytest.approx(np.mean([np.mean([0.7, 0.5]), np.mean([0.4, 0.8])]))
    assert {row.reduction for row in rows} == {"median"}


def test_undefined_values_are_left_out_and_counted():
    rows = summarize(UNEVEN)
    assert (find(rows).num_values, find(rows).undefined_dice, find(rows).undefined_hd95) == (7, 1, 2)
    second = find(rows, fold=1, number=2)
    assert (second.num_values, second.undefined_dice, second.undefined_hd95, second.dice) == (2, 1, 1, 0.8)
    lone = find(rows, fold=0, number=2)
    assert math.isnan(lone.hd95)
    assert math.isnan(lone.dice_sd)


def test_the_worst_scan_and_what_failed():
    rows = summarize(UNEVEN)
    by_scan = {scan: np.nanmean([s.dice for s in UNEVEN if s.scan == scan]) for scan in "abcde"}
    worst = min(by_scan, key=by_scan.get)
    assert (find(rows).worst_scan, find(rows).worst_dice) == (worst, pytest.approx(by_scan[worst]))
    assert find(rows).failed == sum(s.dice < 0.5 for s in UNEVEN) == 2
    assert (find(rows, fold=1, number=2).worst_scan, find(rows, fold=1, number=2).failed) == ("e", 0)
    assert find(summarize([score(0, "a", 1, 0.5)])).failed == 0, "a half is no failure"
    lone = find(summarize([score(0, "a", 1, NAN)]))
    assert lone.worst_scan == ""
    assert math.isnan(lone.worst_dice)
    twice = [score(0, "a", 1, 0.9), score(0, "a", 2, 0.3), score(1, "a", 1, 0.5), score(1, "a", 2, 0.8)]
    assert find(summarize(twice)).worst_dice == pytest.approx(0.6), "scans of two folds are two"


def test_deviation_is_that_of_the_single_values():
    rows = summarize(UNEVEN)
    assert find(rows, number=1).dice_sd == pytest.approx(np.std([0.9, 0.7, 0.2, 0.4], ddof=1))
    assert find(rows).hd95_sd == pytest.approx(np.std([2, 4, 30, 8, 3], ddof=1))


def test_protocols_are_kept_apart_in_their_order():
    rows = summarize([score(0, "a", 1, 0.2, protocol="whole_volume"), score(0, "a", 1, 0.9)], {"alpnet": "median"})
    assert list(dict.fromkeys(row.protocol for row in rows)) == ["whole_volume", "alpnet"]
    assert find(rows, "whole_volume").dice == 0.2
    assert (find(rows, "whole_volume").reduction, find(rows).reduction) == ("mean", "median")


def test_a_scan_scored_twice_is_an_error():
    with pytest.raises(ValueError, match="Scan 'a' is scored 2 times for class 'organ 1' in fold 0"):
        summarize([score(0, "a", 1, 0.9), score(0, "a", 1, 0.8)])


def test_an_unknown_reduction_is_an_error():
    with pytest.raises(ValueError, match="protocol 'alpnet' must be 'mean', 'median' or 'runs', got 'max'"):
        summarize(UNEVEN, {"alpnet": "max"})
