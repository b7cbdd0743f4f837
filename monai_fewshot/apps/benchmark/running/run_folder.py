# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch

import monai_fewshot

__all__ = ["code_version", "machine"]


def code_version() -> str:
    """The commit of the code that runs, with a + where the package or a bundle differs from it."""
    git = ["git", "-C", str(Path(monai_fewshot.__file__).parents[1])]
    try:
        name = subprocess.run([*git, "describe", "--always"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    difference = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "monai_fewshot", "bundles"], check=False)
    return name.stdout.strip() + "+" * (difference.returncode == 1) if name.returncode == 0 else "unknown"


def machine() -> str:
    """The hardware that figures of time belong to."""
    cuda = torch.cuda.is_available()
    return torch.cuda.get_device_name() if cuda else f"{platform.machine()} with {os.cpu_count()} cores"
