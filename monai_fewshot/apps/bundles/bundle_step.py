# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.config import PathLike

from monai_fewshot.utils import did_you_mean
from monai_fewshot.workflows.setting_kinds import plain_value

from .bundle_folders import bundle_folder

__all__ = ["KEEP_MEMORY", "Step", "first_part", "setting_names", "unknown_settings"]

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 31)}
"""Lets glibc keep freed memory for the next step: giving it back and fetching it anew took 44 % of all time here."""


@dataclass(frozen=True)
class Step:
    """One bundle command: configuration files and what they are told besides.

    Attributes:
        bundle: its name, or the path of another one than those of the package.
        configs: names of configuration files, later ones over earlier ones.
        settings: overrides by name.
    """

    bundle: PathLike
    configs: tuple[str, ...]
    settings: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where the command is run."""
        return bundle_folder(self.bundle)

    @staticmethod
    def environment(threads: int | None = None) -> dict[str, str]:
        """Variables that the command is run with; None leaves the number of threads as it is."""
        chosen = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        return {**os.environ, **KEEP_MEMORY, **chosen, "PYTHONWARNINGS": "ignore"}

    def words(self) -> list[str]:
        """What ``python -m monai.bundle`` is told."""
        files = [f"configs/{name}.json" for name in self.configs]
        words = ["run", "--config_file", files[0] if len(files) == 1 else str(files)]
        for key, value in self.settings.items():
            told = plain_value(value if isinstance(value, list) else str(value))
            words += [f"--{key}", "$None" if value is None else str(told)]
        return words

    def command(self) -> list[str]:
        """Words of the command line."""
        return [sys.executable, "-m", "monai.bundle", *self.words()]


def first_part(name: str) -> str:
    """The outermost of the names in a path such as ``train#trainer#max_epochs``."""
    return re.split("::|#", name)[0].lstrip("+")


def setting_names(bundle: Path, configs: Iterable[str]) -> set[str]:
    """Names on the first level of configuration files.

    Args:
        bundle: folder of the bundle.
        configs: names of its files.

    Returns:
        The names.
    """
    files = (bundle / "configs" / f"{config}.json" for config in configs)
    return {first_part(name) for file in files for name in json.loads(file.read_text(encoding="utf-8"))}


def unknown_settings(bundle: Path, configs: Sequence[str], names: Iterable[str]) -> list[str]:
    """Find settings that no configuration file of a step has.

    Args:
        bundle: folder of the bundle.
        configs: names of the files of the step.
        names: of the settings, which may be paths such as ``train#trainer#max_epochs``.

    Returns:
        A sentence for each unknown one, with the nearest known one.
    """
    known = setting_names(bundle, configs)
    files = ", ".join(f"{config}.json" for config in configs)
    unknown = (first for name in names if (first := first_part(str(name))) not in known)
    return [f"{bundle.name} has no setting {first!r} in {files}{did_you_mean(first, known)}" for first in unknown]
