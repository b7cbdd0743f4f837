# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
import math
from dataclasses import replace
from pathlib import Path

import pytest

from monai_fewshot.handlers import ResultRecords
from monai_fewshot.metrics import MEASUREMENT_TABLE, QUALITY_TABLE, Measurement, PredictedQuality
from monai_fewshot.utils import WriteError


def _measured(scan, voxels):
    return Measurement(scan, 1, "liver", voxels, voxels / 1000, *[math.nan] * 7)


@pytest.fixture
def records(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}_seg.nii.gz").write_bytes(name.encode() * 5)
    return ResultRecords(tmp_path)


def _add(records, name, voxels, *qualities):
    records.add(name, [records.folder / f"{name}_seg.nii.gz"], [_measured(name, voxels)], qualities)


def test_the_last_record_of_a_scan_counts(records):
    assert records.read() == {}
    _add(records, "a", 1)
    _add(records, "b", 2)
    (records.folder / "a_seg.nii.gz").write_bytes(b"longer than before")
    _add(records, "a", 3)
    found = records.read()
    assert {name: dict(record.files) for name, record in found.items()} == {
        "a": {"a_seg.nii.gz": 18},
        "b": {"b_seg.nii.gz": 5},
    }
    assert str(found["a"].measurements) == str([_measured("a", 3)])


@pytest.mark.parametrize("rest", [b"", b"{", b'{"scan": "b", "files"', b'["no record"]', b"\xff\xfe", b"{}"])
def test_a_killed_run_leaves_half_a_line_and_the_next_one_goes_on(records, rest):
    _add(records, "a", 1)
    with open(records.path, "ab") as stream:
        stream.write(rest)
    _add(records, "b", 2)
    assert list(records.read()) == ["a", "b"]


def test_rows_go_into_the_tables_at_once_and_out_of_the_records(records, tmp_path):
    tables = tmp_path / "measurements.csv", tmp_path / "quality.csv"
    MEASUREMENT_TABLE.write(tables[0], [_measured("a", 7), _measured("z", 8)])
    quality = PredictedQuality("b", 1, "liver", 0.8, 0.7, 0.9)
    _add(records, "a", 1)
    _add(records, "b", 2, quality)
    assert [row.voxels for row in MEASUREMENT_TABLE.read(tables[0])] == [7, 8]
    merged = records.merge(*tables)
    assert [(row.scan, row.voxels) for row in MEASUREMENT_TABLE.read(tables[0])] == [("a", 1), ("b", 2), ("z", 8)]
    assert str(QUALITY_TABLE.read(tables[1])) == str([quality])
    _add(records, "a", 4)
    records.mark_shown(merged)
    assert [record.scan for record in records.waiting()] == ["a"]
    assert list(records.read()) == ["a", "b"]
    assert len(records.path.read_text().splitlines()) == 2
    records.mark_shown(records.merge(*tables))
    assert [row.voxels for row in MEASUREMENT_TABLE.read(tables[0])] == [4, 2, 8]
    before = records.path.stat().st_mtime_ns
    records.mark_shown(records.merge(*tables))
    assert records.path.stat().st_mtime_ns == before


def test_a_full_disk_is_told(records, monkeypatch):
    def full(self, *_args, **_settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(WriteError, match=r"Cannot write .*results\.jsonl: No space left on device\. It needs"):
        _add(records, "a", 1)


def test_files_lie_in_the_folder(records, tmp_path):
    with pytest.raises(ValueError, match="subpath"):
        records.add("a", [Path(__file__)])


def test_rows_that_hold_nan_are_known_again(records):
    """A NaN that was read anew is another object, which is equal to none."""
    _add(records, "a", 1)
    (record,) = records.waiting()
    again = replace(record, measurements=[replace(row, mean=float("nan")) for row in record.measurements])
    records.mark_shown([again])
    assert records.waiting() == []
