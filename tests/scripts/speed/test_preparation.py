# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What preparation.py compares: the same scans, read and written, and prepared whole."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import preparation

SIZE = (96, 80, 12)


@pytest.fixture
def cases(tmp_path):
    return preparation.make_scans(tmp_path / "source", 2, SIZE)


def voxels(file):
    return np.asanyarray(nib.load(file).dataobj)


def test_scans_are_like_ct_with_all_classes(cases):
    for case in cases:
        image, label = map(voxels, case.files)
        assert image.shape == label.shape == SIZE
        assert (image.dtype, label.dtype) == (np.int16, np.uint8)
        assert np.unique(label).tolist() == list(range(len(preparation.CLASSES) + 1))
        np.testing.assert_allclose([image[label > 0].mean(), image[label > 0].std()], [40, 20], atol=1)


def test_reading_and_writing_copies_every_voxel(cases, tmp_path):
    cost = preparation.read_and_write(cases, tmp_path / "copies", 0)
    assert cost.processor > 0
    assert cost.seconds > 0
    assert cost.memory > 2 * np.prod(SIZE) * 4
    for case in cases:
        for file in case.files:
            np.testing.assert_array_equal(voxels(tmp_path / "copies" / file.parent.name / file.name), voxels(file))


def test_preparations_prepare(cases, tmp_path):
    for index, (name, settings) in enumerate(preparation.PREPARATIONS.items()):
        folder = tmp_path / str(index)
        cost = preparation.prepare(tmp_path / "source", folder, 0, settings)
        assert cost.memory > 0
        content = json.loads((folder / "dataset.json").read_text())
        assert content["modality"] == {"0": settings.get("modality", "")}
        assert len(content["training"]) == len(cases)
        shape = voxels(folder / content["training"][1]["image"]).shape
        assert shape[:2] == settings.get("size", SIZE[:2]), name
        assert preparation.prepare(tmp_path / "source", folder, 0, settings).memory == 0


def test_table(tmp_path, monkeypatch, capsys):
    made = iter([0, 4, 10, 16, 20, 20.5, 30, 38, 40, 40.25])
    monkeypatch.setattr(preparation.time, "perf_counter", lambda: next(made))
    monkeypatch.setattr(preparation, "make_scans", lambda folder, scans, size: [])
    monkeypatch.setattr(preparation, "read_and_write", fake(2**20))
    monkeypatch.setattr(preparation, "prepare", fake(3 * 2**19))
    monkeypatch.setattr(preparation, "PREPARATIONS", {"one": {}})
    monkeypatch.setattr(sys, "argv", ["preparation.py", "--scans", "1", "--folder", str(tmp_path)])
    preparation.main()
    rows = [re.split(r" *\| *", line)[1:-1] for line in capsys.readouterr().out.splitlines()]
    assert rows[2:] == [
        ["reading and writing alone", "6.0", "1.00", "2.0", "1.00", "1.0", "1.00", ""],
        ["one", "0.5", "0.08", "3.0", "1.50", "1.5", "1.50", "8.0"],
    ]


def fake(memory):
    def cost(scans, folder, *arguments):
        folder.mkdir(exist_ok=True)
        start = preparation.time.perf_counter()
        return preparation.Cost(preparation.time.perf_counter() - start, 2 * memory / 2**20, memory)

    return cost
