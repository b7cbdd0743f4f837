# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno

import pytest
from ignite.engine import Engine
from monai.data import DataLoader

from monai_fewshot.utils import WriteError
from monai_fewshot.workflows.failing_scans import run_past_failures


class Items:
    """Items of which one cannot be loaded."""

    def __init__(self, broken):
        self.broken = broken

    def __len__(self):
        return 5

    def __getitem__(self, index):
        if index >= 5:
            raise IndexError(index)
        if index == self.broken:
            raise ValueError(f"item {index} is damaged")
        return index


class _Bound:
    """An engine with its data."""

    def __init__(self, engine, loader):
        self.engine, self.loader = engine, loader

    def run(self):
        self.engine.run(self.loader)


class Runs:
    """Makes engines; what they have done is in ``done``."""

    def __init__(self, error=None, at=None):
        self.done = []
        self.error = error
        self.at = at

    def __call__(self, dataset):
        return _Bound(Engine(self.step), DataLoader(dataset, batch_size=1, num_workers=0))

    def step(self, engine, item):
        item = int(item)
        if item == self.at:
            raise RuntimeError("while it was segmented") from self.error
        self.done.append(item)


def test_others_follow_one_that_cannot_be_loaded_and_one_that_fails():
    runs = Runs(MemoryError("too large"), at=3)
    failed = run_past_failures(runs, Items(broken=1), list("abcde"))
    assert failed == {"b": "ValueError: item 1 is damaged", "d": "MemoryError: too large"}
    assert runs.done == [0, 2, 4]


@pytest.mark.parametrize("broken", [0, 4])
def test_the_first_and_the_last_may_fail(broken):
    runs = Runs()
    assert list(run_past_failures(runs, Items(broken), list("abcde"))) == ["abcde"[broken]]
    assert runs.done == [item for item in range(5) if item != broken]


def test_what_cannot_be_written_stops_the_run():
    error = WriteError("Cannot write a_seg.nii.gz")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    runs = Runs(error, at=2)
    with pytest.raises(RuntimeError, match="while it was segmented"):
        run_past_failures(runs, Items(None), list("abcde"))
    assert runs.done == [0, 1]


def test_an_input_that_may_not_be_read_does_not():
    runs = Runs(PermissionError(errno.EACCES, "Permission denied"), at=2)
    assert list(run_past_failures(runs, Items(None), list("abcde"))) == ["c"]
