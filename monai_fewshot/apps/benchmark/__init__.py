# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .leaderboard.figures import deviation_of_defined, markdown_table, mean_of_defined
from .leaderboard.marked_text import marked_text, replace_between
from .leaderboard.published import PUBLISHED, SOURCES
from .running.run_folder import code_version, machine
from .running.work import run_jobs

__all__ = [
    "PUBLISHED",
    "SOURCES",
    "code_version",
    "deviation_of_defined",
    "machine",
    "markdown_table",
    "marked_text",
    "mean_of_defined",
    "replace_between",
    "run_jobs",
]
