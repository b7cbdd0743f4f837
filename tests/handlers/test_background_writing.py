# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gc
import threading
import weakref
from functools import partial

import pytest

from monai_fewshot.handlers import BackgroundWriting
from monai_fewshot.utils import WriteError


def test_one_scan_is_written_while_the_next_is_made():
    """The caller goes on at once, but not past a second scan."""
    writing, go_on, done = BackgroundWriting(), threading.Event(), []
    writing("a", lambda: go_on.wait(60) and done.append("a"))
    assert done == []
    go_on.set()
    writing("b", lambda: done.append("b"))
    assert done[0] == "a"
    writing.close()
    assert done == ["a", "b"]
    assert writing.failed == {}


def test_what_fails_is_noted_and_a_disk_that_is_full_ends_all():
    def fail(error):
        raise error

    writing, done = BackgroundWriting(), []
    writing("a", lambda: fail(KeyError("a")))
    writing("b", lambda: done.append("b"))
    writing("c", lambda: fail(WriteError("Cannot write c")))
    with pytest.raises(WriteError, match="Cannot write c"):
        writing("d", lambda: done.append("d"))
    writing.close()
    assert done == ["b"]
    assert [repr(error) for error in writing.failed.values()] == ["KeyError('a')"]


def test_the_end_tells_what_could_not_be_written():
    def fail():
        raise RuntimeError("sitk") from WriteError("Cannot write a")

    writing = BackgroundWriting()
    writing("a", fail)
    with pytest.raises(RuntimeError, match="sitk"):
        writing.close()


def test_what_fails_keeps_nothing_in_memory(monkeypatch):
    """Pytest keeps what is logged, with the frames."""
    monkeypatch.setattr("monai_fewshot.handlers.background_writing.logger.disabled", True)

    class Volume:
        pass

    def fail():
        volume = Volume()
        kept.append(weakref.ref(volume))
        try:
            raise KeyError("no such tag")
        except KeyError as error:
            raise RuntimeError("cannot be made") from error

    told: list[str] = []
    kept: list[weakref.ref] = []
    writing = BackgroundWriting(told.append)
    writing("a", fail)
    writing.close()
    gc.collect()
    assert told == list(writing.failed) == ["a"]
    assert kept[0]() is None


@pytest.mark.parametrize("reasons", [["no such tag"] * 3, ["no such tag", "no such tag", "too large"]])
def test_settings_under_which_nothing_can_be_written_stop_the_run(reasons):
    """Three scans at the beginning that fail alike are enough; those that fail for different reasons are not."""

    def fail(reason):
        raise RuntimeError(reason)

    writing = BackgroundWriting()
    for name, reason in zip("abc", reasons, strict=True):
        writing(name, partial(fail, reason))
    if len(set(reasons)) == 1:
        with pytest.raises(WriteError, match="results of the first 3 scans cannot be made: RuntimeError: no such tag"):
            writing.close()
    else:
        writing.close()
        assert list(writing.failed) == ["a", "b", "c"]
