# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
import math
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from monai_fewshot.metrics import ScanScore, read_scores, summarize, write_scores

SCORES = [
    ScanScore(0, 'scan "1", left', 1, "liver", "alpnet", 0.8125, 7.7, "mm", 9, 30, 5000, 5100),
    ScanScore(0, 'scan "1", left', 1, "liver", "whole_volume", 0.1 + 0.2, math.nan, "mm", 30, 30, 5000, 0),
    ScanScore(2, "örtchen\n2", 4, "spleen", "alpnet", math.nan, math.nan, "voxels", 0, 12, 0, 17),
]
PROVENANCE = {"seed": 0, "config": {"rate": np.float32(0.5), "bad": math.inf, "path": Path("a/b")}, "tags": ("x", None)}


@pytest.mark.parametrize("file", [0, 1])
def test_round_trip(tmp_path, file):
    paths = write_scores(SCORES, tmp_path / "new" / "folder", PROVENANCE)
    assert [path.name for path in paths] == ["results.csv", "results.json"]
    read = read_scores(paths[file])
    assert [list(map(repr, astuple(row))) for row in read] == [list(map(repr, astuple(row))) for row in SCORES]


def test_csv_has_one_row_a_score_and_says_nan(tmp_path):
    path, _ = write_scores(SCORES, tmp_path, PROVENANCE)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["scan"] for row in rows] == [score.scan for score in SCORES]
    assert (rows[0]["dice"], rows[2]["dice"]) == ("0.8125", "nan")
    assert [row["hd95_unit"] for row in rows] == ["mm", "mm", "voxels"]


def test_json_has_rows_summary_provenance_and_null(tmp_path):
    _, path = write_scores(SCORES, tmp_path, PROVENANCE, {"alpnet": "median"})
    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert content["scores"][1]["hd95"] is None
    assert content["scores"][2]["hd95_unit"] == "voxels"
    assert content["summary"][-1]["hd95_unit"] == "mm"
    assert content["provenance"]["config"] == {"rate": 0.5, "bad": None, "path": str(Path("a/b"))}
    assert content["provenance"]["tags"] == ["x", None]
    summary = summarize(SCORES, {"alpnet": "median"})
    assert [(r["protocol"], r["fold"], r["class_number"], r["reduction"]) for r in content["summary"]] == [
        (r.protocol, r.fold, r.class_number, r.reduction) for r in summary
    ]
    assert "fraction" in content["units"]["dice"]


def test_a_folder_that_cannot_be_made_is_named_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"Cannot write .*file.results\.csv.*Name an output folder"):
        write_scores(SCORES, tmp_path / "file", PROVENANCE)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no scores at .*results\.csv"):
        read_scores(tmp_path / "results.csv")
    for name, text in (("results.json", '{"a": 1}'), ("other.json", "[1"), ("results.csv", "fold,scan\n0,a\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"{name} is not a results file"):
            read_scores(tmp_path / name)
