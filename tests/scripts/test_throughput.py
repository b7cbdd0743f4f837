# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monai_fewshot.data import SliceStack

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import throughput
import throughput_report

SETTINGS = {"threads": 1, "device": "cpu", "dtype": "float32", "channels_last": None, "compile": None, "steps": 2}


def _stack():
    label = torch.zeros(3, 1, 48, 48, dtype=torch.uint8)
    label[:, :, 8:30, 8:40] = 1
    return SliceStack(torch.rand(3, 1, 48, 48), label, torch.zeros(3))


@pytest.fixture
def cell(monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    return throughput.training_cell(SETTINGS, _stack(), "unet", 3)


def test_a_training_cell_adds_up(cell, monkeypatch):
    assert (cell["encoder"], cell["batch_size"], cell["image_size"]) == ("unet", 3, 48)
    assert cell["episodes_per_s"] == pytest.approx(3 / cell["step_s"])
    assert 0 < cell["making_share"] < 1
    assert cell["peak_bytes"] >= 0
    single = throughput.training_cell(SETTINGS, _stack(), "unet", 1)
    operations = [c["operations_per_s"] * c["step_s"] for c in (cell, single)]
    assert operations[0] == pytest.approx(3 * operations[1], rel=1e-6), "three times the arithmetic"


def test_no_memory_is_reported_and_goes_on(monkeypatch):
    def fail(*arguments, **options):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setattr(throughput.EpisodeLoss, "forward", fail)
    cell = throughput.training_cell(SETTINGS, _stack(), "unet", 2)
    assert cell == {"encoder": "unet", "batch_size": 2, "error": "out of memory"}


def test_peak_memory_is_that_since_the_restart():
    before = throughput.resident_memory(restart_peak=True)
    # Pages of its own: an array might lie in what earlier tests have given back to the allocator.
    pages = mmap.mmap(-1, 40_000_000)
    np.frombuffer(pages, np.uint8).fill(1)
    after = throughput.resident_memory()
    assert 35e6 < after["VmHWM"] - before["VmRSS"] < 60e6


def test_tables_and_plot(cell, tmp_path):
    made = {**cell, "step_s": 2.0, "episodes_per_s": 1.5, "making_share": 0.031, "peak_bytes": 2.5e9}
    made["operations_per_s"] = 2e12
    result = {
        "hardware": "a GPU",
        "torch": "2.13.0",
        "settings": {"dtype": "bfloat16"},
        "peak_operations_per_s": 8e12,
        "training": [made, {"encoder": "unet", "batch_size": 64, "error": "out of memory"}],
        "plain_training": [{"encoder": "unet", "episodes_per_s": 0.5, "making_share": 0.2, "step_s": 2.0}],
        "by_image_size": [made],
        "evaluation": {
            "slices": 30,
            "seconds": 6.0,
            "plain_seconds": 60.0,
            "slices_per_s": 5.0,
            "by_classes": {1: 5.0, 4: 6.0},
            "by_slices": {15: 3.0, 30: 6.0},
        },
        "labeling": {"ours_slices_per_s": 40.0, "plain_slices_per_s": 20.0},
        "image_methods": [
            {
                "method": "masksplit",
                "batch_size": 8,
                "image_size": 96,
                "ours": {"episodes_per_s": 4.5, "making_share": 0.0171, "step_s": 1.78},
                "plain": {"episodes_per_s": 1.5, "making_share": 0.25, "step_s": 0.67},
            }
        ],
    }
    text = throughput_report.report(result)
    assert "| unet | 3 | 1.50 | 0.50 | 3.0 | 3.1 % | 20.0 % | 2.50 | 25 % | 1111 |" in text
    assert "| unet | 64 | out of memory |" in text
    assert "| evaluation, slices/s | 5.00 | 0.50 | 10.0 |" in text
    assert "| evaluation, 4 classes against 1 | 1.20 times | 4 times |" in text
    assert "| superpixels, slices/s | 40.0 | 20.0 | 2.0 |" in text
    assert "| masksplit | 8 | 96 x 96 | 4.50 | 1.50 | 3.0 | 1.7 % | 25.0 % |" in text
    throughput_report.draw(result, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size == (1200, 840)
        assert np.asarray(picture.convert("L")).std() > 10
