# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import runpy
import sys
import time
from pathlib import Path

import torch
from monai.utils import optional_import

from monai_fewshot.utils import write_atomically

__all__ = ["run_measured"]

resource, has_resource = optional_import("resource")


def run_measured(usage: Path, words: list[str]) -> None:
    """Run a command of ``monai.bundle`` in this process and note what it used.

    ``python -m monai_fewshot.apps.benchmark.running.measured USAGE.json run --config_file ...`` is
    ``python -m monai.bundle run --config_file ...`` that leaves ``seconds``, ``busy_seconds``, ``peak_memory_mb`` and
    ``peak_gpu_memory_mb`` (of the process, without children) in a file, null where they are not known. Without a GPU,
    the busy seconds leave out those in which the process waited for a core that others used.

    Args:
        usage: the file.
        words: what ``monai.bundle`` is told.
    """
    started, busy_before = time.perf_counter(), time.process_time()
    sys.argv = ["monai.bundle", *words]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    seconds = time.perf_counter() - started
    content = {
        "seconds": seconds,
        "busy_seconds": seconds if torch.cuda.is_initialized() else min(seconds, time.process_time() - busy_before),
        "peak_memory_mb": _peak_memory() if has_resource else None,
        "peak_gpu_memory_mb": torch.cuda.max_memory_reserved() / 2**20 if torch.cuda.is_initialized() else None,
    }
    write_atomically(usage, json.dumps(content, indent=1))


def _peak_memory() -> float:
    units_in_mb = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / units_in_mb


if __name__ == "__main__":
    run_measured(Path(sys.argv[1]), sys.argv[2:])
