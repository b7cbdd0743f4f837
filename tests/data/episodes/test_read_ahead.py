# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading

import pytest
from interruptions import wait_until

from monai_fewshot.data import OneAtATime, ReadAhead, readers_for
from monai_fewshot.data.episodes import read_ahead


class Items:
    """Items that tell which of them were begun; one cannot be read."""

    def __init__(self, number, broken=None):
        self.number = number
        self.broken = broken
        self.begun = []
        self.threads = set()

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        self.begun.append(index)
        self.threads.add(threading.get_ident())
        if index == self.broken:
            raise ValueError(f"item {index} is damaged")
        return 10 * index


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_items_come_in_order_and_each_is_read_once(workers):
    items = Items(9)
    reader = ReadAhead(items, workers)
    assert [reader[index] for index in range(9)] == [10 * index for index in range(9)]
    assert sorted(items.begun) == list(range(9))
    assert (threading.get_ident() in items.threads) == (workers == 0)
    reader.close()


def test_no_more_are_read_ahead_than_there_are_threads():
    items = Items(9)
    reader = ReadAhead(items, 2)
    _ = reader[0]
    wait_until(lambda: len(items.begun) == 3)
    _ = reader[1]
    wait_until(lambda: len(items.begun) == 4)
    reader.close()
    assert sorted(items.begun) == [0, 1, 2, 3]


def test_an_item_that_cannot_be_read_fails_when_it_is_asked_for():
    items = Items(5, broken=2)
    reader = ReadAhead(items, 4)
    assert [reader[0], reader[1]] == [0, 10]
    with pytest.raises(ValueError, match="item 2 is damaged"):
        _ = reader[2]
    assert [reader[3], reader[4]] == [30, 40]
    assert sorted(items.begun) == [0, 1, 2, 3, 4]
    reader.close()


def test_readers_fit_into_the_free_memory(monkeypatch):
    monkeypatch.setattr(read_ahead, "share_of_cores", lambda: 64)
    monkeypatch.setattr(read_ahead, "free_memory", lambda: 32 * 1000 * 5)
    assert [readers_for(voxels) for voxels in (0, 1000, 5000, 5001)] == [8, 5, 1, 0]
    monkeypatch.setattr(read_ahead, "share_of_cores", lambda: 1)
    assert readers_for(1000) == 1


def test_one_thread_at_a_time_is_within_transforms_of_a_lock():
    inside, lock = [], threading.Lock()

    def transform(data):
        assert lock.locked()
        inside.append(data)
        return data + 1

    assert OneAtATime(transform, lock)(1) == 2
    assert not lock.locked()
