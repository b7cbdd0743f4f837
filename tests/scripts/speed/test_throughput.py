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

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import plain_training
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
    for name, part in cell["parts"].items():
        assert part["seconds"] > 0
        operations = single["parts"][name]["operations"]
        assert part["operations"] == pytest.approx(3 * operations, rel=1e-6), "three times the arithmetic"
    assert cell["parts"]["network"]["operations"] > cell["parts"]["heads"]["operations"] > 0


def test_no_memory_is_reported_and_goes_on(monkeypatch):
    def fail(*arguments, **options):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setattr(throughput.EpisodeLoss, "forward", fail)
    cell = throughput.training_cell(SETTINGS, _stack(), "unet", 2)
    assert cell == {"encoder": "unet", "batch_size": 2, "error": "out of memory"}


def test_the_plain_cell_trains_on_the_loaders_episodes(monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setattr(plain_training, "LOADER_PROCESSES", 1)
    losses = []
    plain_loss = plain_training.plain_loss
    monkeypatch.setattr(throughput, "plain_loss", lambda *inputs: losses.append(inputs[1]) or plain_loss(*inputs))
    cell = throughput.plain_training_cell(SETTINGS, _stack(), "unet")
    assert len(losses) == 2 * SETTINGS["steps"] + 2
    assert all(x.shape == (1, 1, 48, 48) for episode in losses for x in episode)
    assert cell["episodes_per_s"] == pytest.approx(1 / cell["step_s"])


def test_the_peak_is_the_faster_of_a_product_and_a_convolution(monkeypatch):
    seconds = iter([2.0, 1e-3])
    monkeypatch.setattr(throughput, "median_seconds", lambda call, device, repeats: (call(), next(seconds))[1])
    convolution = 2 * 8 * 32 * 32 * 256 * 256 * 9
    assert throughput.peak_arithmetic("cpu", torch.float32) == pytest.approx(convolution / 1e-3)


def test_peak_memory_is_that_since_the_restart():
    before = throughput.resident_memory(restart_peak=True)
    # Pages of its own: an array might lie in what earlier tests have given back to the allocator.
    pages = mmap.mmap(-1, 40_000_000)
    np.frombuffer(pages, np.uint8).fill(1)
    after = throughput.resident_memory()
    assert 35e6 < after["VmHWM"] - before["VmRSS"] < 60e6


def test_tables_and_plot(cell, tmp_path):
    parts = {
        name: {"seconds": s, "operations": 2e12} for name, s in (("network", 1.0), ("heads", 0.5), ("making", 0.062))
    }
    made = {**cell, "step_s": 2.0, "episodes_per_s": 1.5, "peak_bytes": 2.5e9, "parts": parts}
    run = {
        "threads": 2,
        "dtype": "bfloat16",
        "peak_operations_per_s": 8e12,
        "training": [made, {"encoder": "unet", "batch_size": 64, "error": "out of memory"}],
        "evaluation": {
            "slices": 30,
            "seconds": 6.0,
            "by_classes": {1: 5.0, 4: 6.0},
            "by_slices": {15: 3.0, 30: 6.0},
        },
        "image_methods": {
            "masksplit": {"episodes_per_s": 4.5, "making_share": 0.0171},
            "surrogate_fewshot": {"episodes_per_s": 2.5, "making_share": 0.02},
        },
        "plain": {
            "training": {"unet": {"episodes_per_s": 0.5, "making_share": 0.2}},
            "evaluation_s": 60.0,
            "image_methods": {"masksplit": {"episodes_per_s": 3.0, "making_share": 0.25}},
        },
    }
    result = {
        "hardware": "a GPU",
        "torch": "2.13.0",
        "runs": [run],
        "by_image_size": [made],
        "labeling": {"ours_slices_per_s": 40.0, "plain_slices_per_s": 20.0},
    }
    text = throughput_report.report(result)
    shares = "50 % at 25 % | 25 % at 50 % | 3 % at 403 %"
    assert f"| 2 | bfloat16 | unet | 3 | 1.50 | 0.50 | 3.00 | 20.0 % | {shares} | 2.50 | 1111 |" in text
    assert "| 2 | bfloat16 | unet | 64 | out of memory |" in text
    assert "| 2 | bfloat16 | 5.00 | 0.50 | 10.00 | 1.20 times |" in text
    assert "Superpixels: 40.0 slices/s, in one process 20.0, ratio 2.0" in text
    assert "| 2 | bfloat16 | masksplit | 4.50 | 3.00 | 1.50 | 1.7 % | 25.0 % |" in text
    assert "| 2 | bfloat16 | surrogate_fewshot | 2.50 |  |  | 2.0 % |  |" in text
    throughput_report.draw(result, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size == (1200, 840)
        assert np.asarray(picture.convert("L")).std() > 10
