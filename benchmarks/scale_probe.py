# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs a bundle's inference and counts, for scale.py: how often each file is unpacked, and when masks are written.

usage: scale_probe.py FOLDER CONFIG --SETTING VALUE ...

Into FOLDER goes a JSON file of each process: ``first_mask`` in seconds from ``PROBE_START``, ``at_100`` and ``at_end``,
the peak of its memory in MB at the 100th and at the last mask, and ``read``, how many times the whole of each gzip
file was unpacked.
"""

from __future__ import annotations

import atexit
import gzip
import json
import os
import resource
import runpy
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

PROBE = Path(__file__).resolve()
START = float(os.environ.get("PROBE_START", "0"))

counted: dict[str, Any] = {"first_mask": None, "at_100": 0.0, "at_end": 0.0}
unpacked: Counter[str] = Counter()
masks = 0


def count_readings() -> None:
    """Count the bytes that are unpacked of each file, whoever reads it."""
    read = gzip.GzipFile.read

    def counting_read(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        data = read(self, size)
        unpacked[os.path.abspath(self.fileobj.name)] += len(data)
        return data

    gzip.GzipFile.read = counting_read  # type: ignore[method-assign]


def note_masks() -> None:
    """Note when masks come under their names, which ``os.replace`` gives them."""
    replace = os.replace

    def noting_replace(source: Any, target: Any, **options: Any) -> None:
        global masks
        replace(source, target, **options)
        if str(target).endswith("_seg.nii.gz"):
            masks += 1
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            counted["first_mask"] = counted["first_mask"] or time.time() - START
            counted["at_end"] = memory
            if masks == 100:
                counted["at_100"] = memory

    os.replace = noting_replace


def write(folder: Path) -> None:
    """Write what was counted; the size of a file when unpacked stands in its last four bytes."""
    sizes = {name: int.from_bytes(Path(name).read_bytes()[-4:], "little") for name in unpacked if Path(name).is_file()}
    counted["read"] = {name: round(unpacked[name] / size, 2) for name, size in sizes.items() if size}
    (folder / f"{os.getpid()}.json").write_text(json.dumps(counted))


if __name__ == "__main__":
    folder, config, *settings = sys.argv[1:]
    count_readings()
    note_masks()
    atexit.register(write, Path(folder))
    sys.argv = ["monai.bundle", "run", "--config_file", config, *settings]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
