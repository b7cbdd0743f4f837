# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What damaged_files.py tries, and what it says of a file that is not refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import damaged_files


@pytest.mark.parametrize("name", ["NIfTI, gzip", "PNG", "checkpoint", "RTSTRUCT"])
def test_no_damage_goes_unseen_where_there_is_a_checksum_nor_is_an_error_without_a_name(name):
    table, wrong = damaged_files.report(3, 1, [name])
    assert wrong == []
    counts = [int(cell) for cell in table.splitlines()[-1].split("|")[3:-1]]
    assert counts[0] == sum(counts[1:]) == 9


def test_the_same_seed_gives_the_same_damage_within_its_place():
    raw = bytes(range(256))
    for kind in damaged_files.KINDS:
        one, other = (damaged_files.damaged(raw, kind, (100, 120), np.random.default_rng(3)) for _ in range(2))
        assert one == other != raw
        assert one[:100] == raw[:100]
        assert kind == "cut" or one[120:] == raw[120:]


def test_what_is_read_otherwise_and_errors_without_a_name_are_told(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"\1" * 9)

    def read():
        content = file.read_bytes()
        if len(content) < 9:
            raise KeyError("no name")
        return [np.frombuffer(content, np.uint8)]

    found = list(damaged_files.outcomes(damaged_files.Sample(file, read, ("a.bin",)), 4, 0))
    assert [outcome for outcome, _ in found] == ["other"] * 8 + ["unnamed"] * 4
