# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from monai_fewshot.utils import WriteError, root_cause

__all__ = ["run_past_failures"]

logger = logging.getLogger(__name__)


class _Remaining:
    """The items of a dataset from one on; remembers which one was asked for last."""

    def __init__(self, dataset: Any, first: int) -> None:
        self.dataset = dataset
        self.first = self.last_asked = first

    def __len__(self) -> int:
        return len(self.dataset) - self.first

    def __getitem__(self, index: int) -> Any:
        self.last_asked = self.first + index
        return self.dataset[self.last_asked]


def run_past_failures(make_engine: Callable[[Any], Any], dataset: Any, names: Sequence[str]) -> dict[str, str]:
    """Run an engine over a dataset; an item that fails is noted, and the items behind it follow.

    Args:
        make_engine: makes an engine that reads a dataset item by item, in its own process.
        dataset: the items.
        names: what they are called.

    Returns:
        The reason of each failure, by name.

    Raises:
        WriteError: where a file cannot be written, for then no other item would fare better.
    """
    failed: dict[str, str] = {}
    first = 0
    while first < len(names):
        remaining = _Remaining(dataset, first)
        engine = make_engine(remaining)
        try:
            engine.run()
            break
        except Exception as error:
            if isinstance(root_cause(error, WriteError), WriteError):
                raise
            reason = root_cause(error)
            name = names[remaining.last_asked]
            logger.exception("%s cannot be segmented", name)
            failed[name] = f"{type(reason).__name__}: {reason}"
            first = remaining.last_asked + 1
    return failed
