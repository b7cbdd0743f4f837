# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os

import pytest

from monai_fewshot.utils import write_atomically


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
