# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import runpy
import sys
import traceback

__all__ = ["run_step"]


def run_step(words: list[str]) -> None:
    """Run a command of ``monai.bundle`` in this process, with tracebacks on standard output.

    Standard output goes to a log, and standard error, with its progress bars, to whoever waits:
    ``python -m monai_fewshot.apps.bundles.step_process run --config_file ...``.

    Args:
        words: what ``monai.bundle`` is told.

    Raises:
        SystemExit: with code 1 where it fails.
    """
    sys.argv = ["monai.bundle", *words]
    try:
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    except Exception:
        traceback.print_exc(file=sys.stdout)
        sys.exit(1)


if __name__ == "__main__":
    run_step(sys.argv[1:])
