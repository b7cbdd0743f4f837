# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .bundle_step import BUNDLES, KEEP_MEMORY, Step
from .child_processes import ChildProcesses, signals_interrupt
from .figures import deviation_of_defined, markdown_table, mean_of_defined
from .marked_text import marked_text, replace_between
from .published import PUBLISHED, SOURCES
from .run_folder import code_version, locked_folder, machine
from .work import run_jobs

__all__ = [
    "BUNDLES",
    "KEEP_MEMORY",
    "PUBLISHED",
    "SOURCES",
    "ChildProcesses",
    "Step",
    "code_version",
    "deviation_of_defined",
    "locked_folder",
    "machine",
    "markdown_table",
    "marked_text",
    "mean_of_defined",
    "replace_between",
    "run_jobs",
    "signals_interrupt",
]
