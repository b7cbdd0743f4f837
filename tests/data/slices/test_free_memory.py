# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from importlib import import_module

import pytest

MODULE = import_module("monai_fewshot.data.slices.free_memory")


def test_processes_of_a_machine_share_its_memory(monkeypatch):
    monkeypatch.setattr(MODULE, "_left_to_job", lambda: iter([8000]))
    assert MODULE.free_memory() == 8000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert MODULE.free_memory() == 2000


@pytest.mark.parametrize(
    ("limit", "usage"), [("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")]
)
def test_a_control_group_leaves_what_it_does_not_use_itself(tmp_path, limit, usage):
    (tmp_path / limit).write_text("1000\n")
    (tmp_path / usage).write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert list(MODULE._left_to_group(tmp_path)) == [450]
    (tmp_path / limit).write_text("max\n")
    assert list(MODULE._left_to_group(tmp_path)) == []
