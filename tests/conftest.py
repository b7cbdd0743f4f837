# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

DTYPE = "MONAI_FEWSHOT_DTYPE"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Refuse the default precision to tests that do not say that they use it, and to the processes they start."""
    if item.get_closest_marker("default_dtype"):
        return (yield)
    before = os.environ.get(DTYPE)
    os.environ[DTYPE] = "for tests with the marker default_dtype alone"
    try:
        return (yield)
    finally:
        if before is None:
            del os.environ[DTYPE]
        else:
            os.environ[DTYPE] = before


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


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl+C reaches this process and those it starts, even if a shell started it in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
