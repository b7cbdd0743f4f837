# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
import multiprocessing
import os
import time
import warnings
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest

from monai_fewshot.utils import ArrayCache, array_key


@pytest.mark.parametrize(
    ("top", "dtype"), [(1, np.uint8), (255, np.uint8), (256, np.uint16), (70000, np.uint32), (2**33, np.uint64)]
)
def test_arrays_come_back_in_the_smallest_type(tmp_path, top, dtype):
    array = np.array([[0, 1, top]], dtype=np.int64)
    ArrayCache(tmp_path).put("a", array)
    stored = ArrayCache(tmp_path).get("a")
    assert stored.dtype == dtype
    assert (stored == array).all()


def test_unknown_key_is_none_without_a_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ArrayCache(tmp_path / "deep" / "folder").get("a") is None


def test_put_replaces_and_leaves_one_file(tmp_path):
    cache = ArrayCache(tmp_path)
    cache.put("a", np.zeros(3, int))
    cache.put("a", np.ones(4, int))
    assert cache.get("a").tolist() == [1, 1, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b[:40] + b"x" * 40 + b[80:]])
def test_damaged_file_is_a_warning(tmp_path, damage):
    cache = ArrayCache(tmp_path)
    cache.put("a", np.arange(1000) % 7)
    cache.path("a").write_bytes(damage(cache.path("a").read_bytes()))
    with pytest.warns(UserWarning, match=r"a\.npz' is damaged and is computed again"):
        assert cache.get("a") is None


def test_interrupted_write_keeps_the_old_array(tmp_path, monkeypatch):
    cache = ArrayCache(tmp_path)
    cache.put("a", np.zeros(3, int))

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.put("a", np.ones(3, int))
    assert cache.get("a").tolist() == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_remains_of_a_killed_writer_go_after_a_day(tmp_path):
    cache = ArrayCache(tmp_path)
    cache.put("a", np.arange(3))
    old, new = tmp_path / ".1f.b.npz", tmp_path / ".2f.c.npz"
    for path in (old, new):
        path.touch()
    for path in (old, cache.path("a")):
        os.utime(path, (0, time.time() - 25 * 3600))
    assert ArrayCache(tmp_path).get("a").tolist() == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, "a.npz"]


def fill(folder, seed):
    cache = ArrayCache(folder)
    for value in np.random.default_rng(seed).integers(0, 5, 200):
        stored = cache.get(f"key{value}")
        assert stored is None or (len(stored) == 20000 and (stored == value).all())
        cache.put(f"key{value}", np.full(20000, value))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_several_writers_share_a_folder(tmp_path, kind):
    with ThreadPool(4) if kind == "threads" else multiprocessing.get_context("fork").Pool(2) as pool:
        pool.starmap(fill, [(tmp_path, seed) for seed in range(4)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"key{value}.npz" for value in range(5)]


def test_unusable_folder(tmp_path):
    file = tmp_path / "file"
    file.write_text("no folder")
    with pytest.raises(OSError, match=r"cache_dir '.*file.sub' cannot be written to .*; give a folder"):
        ArrayCache(file / "sub")


def test_wrong_arrays(tmp_path):
    with pytest.raises(ValueError, match="integers of 0 or greater, got float64"):
        ArrayCache(tmp_path).put("a", np.zeros(3))
    with pytest.raises(ValueError, match="with minimum -1"):
        ArrayCache(tmp_path).put("a", np.array([-1, 2]))


def test_key_depends_on_values_shape_type_and_parameters():
    array = np.arange(6, dtype=np.int16)
    variants = [
        array_key(array, {"a": 1}),
        array_key(array + 1, {"a": 1}),
        array_key(array.reshape(2, 3), {"a": 1}),
        array_key(array.astype(np.uint16), {"a": 1}),
        array_key(array, {"a": 2}),
        array_key(array, {"b": 1}),
    ]
    assert len(set(variants)) == len(variants)
    assert array_key(array, {"a": 1, "b": 2}) == array_key(array.copy(), {"b": 2, "a": 1})
    table = np.arange(6).reshape(2, 3)
    assert array_key(table.T, {}) == array_key(np.ascontiguousarray(table.T), {}) != array_key(table, {})


def noise(seed):
    """An array that takes a little over 10 kB, however it is compressed."""
    return np.random.default_rng(seed).integers(0, 256, 10_000)


def keys(folder):
    return sorted(path.stem for path in folder.iterdir())


def make_older(cache, *keys):
    for age, key in enumerate(reversed(keys), start=1):
        os.utime(cache.path(key), ns=(0, time.time_ns() - age * 10**9))


def test_files_not_used_for_longest_go_where_the_limit_is_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_FEWSHOT_CACHE_GB", "45e-6")
    cache = ArrayCache(tmp_path)
    for number in range(4):
        cache.put(f"{number}", noise(number))
    make_older(cache, "0", "1", "2", "3")
    assert (cache.get("0") == noise(0)).all()
    cache.put("4", noise(4))
    assert keys(tmp_path) == ["0", "3", "4"]
    assert cache.get("1") is None


def test_what_other_processes_add_counts_when_the_limit_is_near(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_FEWSHOT_CACHE_GB", "45e-6")
    one, other = ArrayCache(tmp_path), ArrayCache(tmp_path)
    for number in range(3):
        one.put(f"{number}", noise(number))
    other.put("3", noise(3))
    make_older(one, "0", "1", "2", "3")
    other.put("4", noise(4))
    assert keys(tmp_path) == ["2", "3", "4"]


def test_an_array_larger_than_the_limit_is_kept_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_FEWSHOT_CACHE_GB", "5e-6")
    cache = ArrayCache(tmp_path)
    for number in range(3):
        cache.put(f"{number}", noise(number))
    assert keys(tmp_path) == ["2"]


@pytest.mark.parametrize("text", ["much", "0", "-3", "nan"])
def test_a_limit_that_is_no_number_of_gigabytes(tmp_path, monkeypatch, text):
    monkeypatch.setenv("MONAI_FEWSHOT_CACHE_GB", text)
    with pytest.raises(ValueError, match=f"MONAI_FEWSHOT_CACHE_GB is '{text}': set it to gigabytes, or unset it"):
        ArrayCache(tmp_path)


def test_files_of_other_users_stay_and_stop_nobody(tmp_path, monkeypatch):
    """In a folder that several people share, as on many clusters, nobody may remove what others wrote."""
    monkeypatch.setenv("MONAI_FEWSHOT_CACHE_GB", "45e-6")
    left = tmp_path / ".other.0.npz"
    left.touch()
    os.utime(left, (0, time.time() - 25 * 3600))
    unlink = Path.unlink

    def owners_only(path, missing_ok=False):
        if path.name in (left.name, "0.npz"):
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", owners_only)
    cache = ArrayCache(tmp_path)
    for number in range(5):
        cache.put(f"{number}", noise(number))
        make_older(cache, *(f"{each}" for each in range(number + 1) if cache.path(f"{each}").exists()))
    assert keys(tmp_path) == [".other.0", "0", "3", "4"]
