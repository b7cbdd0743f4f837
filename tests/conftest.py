# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from pathlib import Path

import pytest


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        pytest.skip(f"{variable} does not name a folder")
    return Path(value)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Reference arrays of the published implementations."""
    return _folder("MONAI_FEWSHOT_GOLDEN")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real scans, never part of the project."""
    return _folder("MONAI_FEWSHOT_DATA")
