# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .bundle_folders import bundle_folder, bundle_names
from .bundle_step import KEEP_MEMORY, Step
from .child_processes import ChildProcesses, signals_interrupt
from .method import BundleMethod, LearnsFrom, WorksOn, read_method, read_methods
from .run_folder import locked_folder

__all__ = [
    "KEEP_MEMORY",
    "BundleMethod",
    "ChildProcesses",
    "LearnsFrom",
    "Step",
    "WorksOn",
    "bundle_folder",
    "bundle_names",
    "locked_folder",
    "read_method",
    "read_methods",
    "signals_interrupt",
]
