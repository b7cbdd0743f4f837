# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from monai_fewshot.metrics import ScanScore
from monai_fewshot.visualize import capture_case, read_cases, select_cases, write_cases

AFFINE = np.diag([-1.0, 2.0, 5.0, 1.0])


def make_case(scan="a", fold=0, name="liver"):
    label = np.zeros((12, 10, 5), dtype=bool)
    label[2:6, 2:4, 1] = True
    label[2:9, 2:7, 3] = True
    image = np.random.RandomState(0).normal(100, 20, label.shape)
    predictions = {"alpnet": np.roll(label, 1, 0), "whole_volume": ~label}
    return capture_case(fold, scan, name, image, label, predictions, AFFINE)


def score(scan, dice, protocol="alpnet", fold=0, name="liver"):
    return ScanScore(fold, scan, 1, name, protocol, dice, 3.0, "mm", 5, 9, 100, 90)


def test_the_slice_with_most_of_the_class_is_kept_and_turned():
    case = make_case()
    assert (case.slice_index, case.pixel_aspect) == (3, 2.0)
    truth = np.zeros((10, 12), dtype=bool)
    truth[3:8, 2:9] = True
    np.testing.assert_array_equal(case.label, truth)
    np.testing.assert_array_equal(case.predictions[0], np.roll(truth, 1, 1))
    np.testing.assert_array_equal(case.predictions[1], ~truth)
    assert (case.image.dtype, case.image.min(), case.image.max()) == (np.uint8, 0, 255)
    assert case.label_pixels.tolist() == [0, 8, 0, 35, 0]
    assert case.predicted_pixels.tolist() == [[0, 8, 0, 35, 0], [120, 112, 120, 85, 120]]


def test_a_scan_without_the_class_has_no_case():
    empty = np.zeros((4, 4, 2), dtype=bool)
    assert capture_case(0, "a", "liver", np.ones((4, 4, 2)), empty, {"alpnet": ~empty}, AFFINE) is None


def test_best_median_and_worst():
    dice = {"a": 0.5, "b": 0.9, "c": math.nan, "d": 0.1, "e": 0.7, "f": 0.6}
    scores = [score(scan, value) for scan, value in dice.items()]
    scores += [score(scan, 1 - value, "whole_volume") for scan, value in dice.items()]
    cases = [make_case(scan) for scan in "abcdef"]
    selected = select_cases(scores, cases, "alpnet")["liver"]
    assert {rank: case.scan for rank, case in selected.items()} == {"best": "b", "median": "f", "worst": "d"}
    other = select_cases(scores, cases, "whole_volume")["liver"]
    assert {rank: case.scan for rank, case in other.items()} == {"best": "d", "median": "f", "worst": "b"}
    even = select_cases(scores, [case for case in cases if case.scan != "f"], "alpnet")["liver"]
    assert even["median"].scan == "a"


def test_few_cases_are_not_shown_twice_and_classes_and_folds_kept_apart():
    scores = [score("a", 0.5), score("b", 0.6), score("a", 0.9, fold=1), score("b", 0.2, name="spleen")]
    cases = [make_case("a"), make_case("b"), make_case("a", fold=1), make_case("b", name="spleen")]
    selected = select_cases(scores, cases, "alpnet")
    assert list(selected["spleen"]) == ["best"]
    assert [(case.scan, case.fold) for case in selected["liver"].values()] == [("a", 1), ("b", 0), ("a", 0)]
    assert list(select_cases(scores[:2], cases, "alpnet")["liver"]) == ["best", "worst"]
    assert select_cases(scores, [], "alpnet") == {}


def test_round_trip(tmp_path):
    cases = [make_case("a/b $1"), make_case("ö", 2)]
    read = read_cases(write_cases(cases, tmp_path / "new" / "cases.npz"))
    for wanted, got in zip(cases, read, strict=True):
        for field in fields(wanted):
            np.testing.assert_array_equal(getattr(got, field.name), getattr(wanted, field.name))
        assert isinstance(got.protocols, tuple)
        assert got.label.dtype == bool


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no cases at .*cases\.npz"):
        read_cases(tmp_path / "cases.npz")
