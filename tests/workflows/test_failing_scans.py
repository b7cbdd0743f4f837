# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
import gc
import weakref

import pytest
from ignite.engine import Engine
from monai.data import DataLoader

from monai_fewshot.utils import WriteError, reason_of
from monai_fewshot.workflows.failing_scans import RemainingItems, run_past_failures


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

    def past_failures(self, items, **settings):
        """Go through the items; return what has failed, and why."""
        remaining = RemainingItems(items)

        def make():
            return _Bound(Engine(self.step), DataLoader(remaining, batch_size=1, num_workers=0))

        failed = run_past_failures(make, remaining, list("abcde"), **settings)
        return {name: reason_of(error) for name, error in failed.items()}

    def step(self, engine, item):
        item = int(item)
        if item == self.at:
            raise RuntimeError("while it was segmented") from self.error
        self.done.append(item)


def test_others_follow_one_that_cannot_be_loaded_and_one_that_fails():
    runs = Runs(MemoryError("too large"), at=3)
    told = []
    failed = runs.past_failures(Items(broken=1), after_failure=told.append)
    assert failed == {"b": "ValueError: item 1 is damaged", "d": "MemoryError: too large"}
    assert runs.done == [0, 2, 4]
    assert told == ["b", "d"]


@pytest.mark.parametrize("broken", [0, 4])
def test_the_first_and_the_last_may_fail(broken):
    runs = Runs()
    assert list(runs.past_failures(Items(broken))) == ["abcde"[broken]]
    assert runs.done == [item for item in range(5) if item != broken]


def test_what_cannot_be_written_stops_the_run():
    error = WriteError("Cannot write a_seg.nii.gz")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    runs = Runs(error, at=2)
    with pytest.raises(RuntimeError, match="while it was segmented"):
        runs.past_failures(Items(None))
    assert runs.done == [0, 1]


def test_an_input_that_may_not_be_read_does_not():
    runs = Runs(PermissionError(errno.EACCES, "Permission denied"), at=2)
    assert list(runs.past_failures(Items(None))) == ["c"]


@pytest.mark.parametrize("reasons", [["no such protocol"] * 3, ["no such protocol"] * 2 + ["too large"]])
def test_settings_under_which_nothing_can_be_segmented_stop_the_run(reasons):
    """Three items at the beginning that fail alike are enough; those that fail for different reasons are not."""

    class Failing(Runs):
        def step(self, engine, item):
            if int(item) < 3:
                raise ValueError(reasons[int(item)])
            self.done.append(int(item))

    runs = Failing()
    if len(set(reasons)) == 1:
        with pytest.raises(ValueError, match="no such protocol"):
            runs.past_failures(Items(None))
        assert runs.done == []
    else:
        assert list(runs.past_failures(Items(None))) == ["a", "b", "c"]
        assert runs.done == [3, 4]


def test_an_engine_that_cannot_start_stops_the_run():
    def make():
        raise ValueError("the weights do not fit")

    with pytest.raises(ValueError, match="the weights do not fit"):
        run_past_failures(make, RemainingItems(Items(None)), list("abcde"))


def test_items_that_fail_are_not_kept_in_memory(monkeypatch):
    """Pytest keeps what is logged, with the frames."""
    monkeypatch.setattr("monai_fewshot.workflows.failing_scans.logger.disabled", True)

    class Volume:
        pass

    class Failing(Runs):
        def step(self, engine, item):
            volume = Volume()
            kept.append(weakref.ref(volume))
            raise ValueError(f"item {int(item)}")

    kept: list[weakref.ref] = []
    runs = Failing()
    remaining = RemainingItems(Items(None))
    failed = run_past_failures(
        lambda: _Bound(Engine(runs.step), DataLoader(remaining, batch_size=1, num_workers=0)), remaining, list("abcde")
    )
    gc.collect()
    assert list(failed) == list("abcde")
    assert [volume() for volume in kept] == [None] * 5
