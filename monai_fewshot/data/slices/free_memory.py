# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["free_memory"]

CGROUP_LIMITS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def free_memory() -> int | None:
    """Bytes of memory that this process may take: free ones of the machine, or of the job's share of it.

    The processes of torchrun on one machine share them. None on systems that do not tell, which are all but Linux.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    except OSError:
        return None
    return min([*free, *_left_to_job()]) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if free else None


def _left_to_job() -> Iterator[int]:
    """What control groups, such as those of Slurm and of containers, leave to this process."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kind, place = line.split(":", 2)
        group = root / ("memory" if "memory" in kind.split(",") else "") / place.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield from _left_to_group(folder)


def _left_to_group(folder: Path) -> Iterator[int]:
    for limit, usage in CGROUP_LIMITS:
        try:
            most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
            cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most.isdigit():
            yield max(int(most) - used + int(cached.get("inactive_file", 0)), 0)
