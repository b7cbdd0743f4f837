# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from monai_fewshot.utils import WriteError, atomic_path, write_atomically


def test_writes_text_and_bytes_into_new_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b.txt"
    assert write_atomically(path, "größer") == path
    assert path.read_bytes() == "größer".encode()
    write_atomically(path, b"\x00\r\n")
    assert path.read_bytes() == b"\x00\r\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["b.txt"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "scores.csv", "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ValueError, match=r"Cannot write .*scores\.csv: disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.csv"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_gives_the_room_that_is_needed_and_left(tmp_path, monkeypatch, number):
    path = write_atomically(tmp_path / "scores.csv", "old")

    def fail(file, content):
        with open(file, "wb") as stream:
            stream.write(content[:100])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", fail)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3_000_000))
    with pytest.raises(WriteError) as caught:
        write_atomically(path, bytes(12_300_000))
    assert str(caught.value).startswith(
        f"Cannot write {path}: {os.strerror(number)}. It needs 12.3 MB. 3 MB are left on the disk of {tmp_path}"
    )
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.csv"]


def test_a_library_writes_the_file_under_another_name_with_its_endings(tmp_path):
    with atomic_path(tmp_path / "mask.nii.gz") as temporary:
        temporary.write_bytes(b"voxels")
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".mask.nii.gz")
    assert [entry.name for entry in tmp_path.iterdir()] == ["mask.nii.gz"]
    with pytest.raises(WriteError, match=r"Cannot write .*mask"), atomic_path(tmp_path / "mask.nii.gz") as temporary:
        temporary.joinpath("none").write_bytes(b"half")
    assert (tmp_path / "mask.nii.gz").read_bytes() == b"voxels"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mask.nii.gz"]
