# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What scale.py counts of an inference."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import scale  # noqa: E402

pytestmark = pytest.mark.slow


def test_readings_masks_and_memory_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "SIZE", (48, 48, 12))
    monkeypatch.setattr(scale, "PHANTOMS", 4)
    monkeypatch.setattr(scale, "LARGE_SIZE", (96, 96, 24))
    scale.make_scans(tmp_path, 3, 1)
    _, processes, first, whole, readings, _, memory, _ = scale.measured_row(ROOT, tmp_path, tmp_path / "out", 1)
    assert processes == "1"
    assert 0 < float(first) < float(whole.partition(" ")[0])
    low, high = map(float, readings.split(" to "))
    assert 1 <= low <= high < 1.3
    assert float(memory) > 100
    assert sorted(file.name for file in (tmp_path / "out").glob("*_seg.nii.gz")) == [
        "large_0_seg.nii.gz",
        *(f"scan_{number:05d}_seg.nii.gz" for number in range(3)),
    ]
