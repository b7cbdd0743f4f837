# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest

from monai_fewshot.metrics import CONFIDENCE_LINE, QUALITY_TABLE, REVERSE_LINE, PredictedQuality, QualityLine


def test_the_line_is_one_between_log_odds():
    dice, low, high = QualityLine(-0.4, 1.5, 0.7)(0.9)
    middle = -0.4 + 1.5 * math.log(9)
    for found, log_odds in ((dice, middle), (low, middle - 1.645 * 0.7), (high, middle + 1.645 * 0.7)):
        assert found == pytest.approx(math.exp(log_odds) / (1 + math.exp(log_odds)), rel=1e-12)


def test_the_ends_are_finite_and_what_is_not_found_has_no_dice():
    assert all(0 < value < 1 for evidence in (0.0, 1.0) for value in CONFIDENCE_LINE(evidence))
    assert REVERSE_LINE(math.nan) == (0, 0, 0)


@pytest.mark.parametrize("line", [CONFIDENCE_LINE, REVERSE_LINE])
def test_more_evidence_predicts_a_higher_dice(line):
    values = [line(evidence)[0] for evidence in (0.3, 0.6, 0.9, 0.99)]
    assert values == sorted(set(values))


def test_the_table_comes_back_and_takes_a_scan_once(tmp_path):
    table = tmp_path / "quality.csv"
    rows = [PredictedQuality("b", 2, "x, y", 0.5, 0.4, 0.6, 0.9), PredictedQuality("a", 7, "z", 0.0, 0.0, 0.0, 0.5)]
    QUALITY_TABLE.add(table, rows)
    assert table.read_text().splitlines()[0] == "scan,label,name,predicted_dice,low,high,evidence"
    assert QUALITY_TABLE.read(table) == rows[::-1]
    again = PredictedQuality("b", 2, "x, y", 0.8, 0.7, 0.9, 0.95)
    QUALITY_TABLE.add(table, [again])
    assert QUALITY_TABLE.read(table) == [rows[1], again]
    table.write_text("scan,dice\na,0.5\n")
    with pytest.raises(ValueError, match=r"quality\.csv does not hold predicted qualities \(KeyError: 'label'\)"):
        QUALITY_TABLE.add(table, rows)
    assert table.read_text() == "scan,dice\na,0.5\n"
