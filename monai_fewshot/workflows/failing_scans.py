# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from monai_fewshot.utils import WriteError, root_cause, same_reason_at_first, without_frames

__all__ = ["RemainingItems", "run_past_failures"]

logger = logging.getLogger(__name__)


class RemainingItems:
    """The items of a dataset from one on; remembers which one was asked for last.

    Args:
        dataset: whose items are asked for in ascending order.

    Attributes:
        first: number of the first that remains; it may be changed.
        last_asked: number of the item that was asked for last; None before the first.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.first = 0
        self.last_asked: int | None = None

    def __len__(self) -> int:
        return len(self.dataset) - self.first

    def __getitem__(self, index: int) -> Any:
        self.last_asked = self.first + index
        return self.dataset[self.last_asked]


def run_past_failures(
    make_engine: Callable[[], Any],
    items: RemainingItems,
    names: Sequence[str],
    after_failure: Callable[[str], None] = lambda name: None,
) -> dict[str, Exception]:
    """Run engines over a dataset; an item that fails is noted, and the items behind it follow.

    Args:
        make_engine: makes an engine that reads ``items`` one by one, in its own process.
        items: of the dataset.
        names: what they are called.
        after_failure: is given the name of each item that failed.

    Returns:
        The error of each failure, by name.

    Raises:
        WriteError: where a file cannot be written, for then no other item would fare better.
        Exception: where the first three items fail for the same reason, or an engine before it asks for an item.
    """
    failed: dict[str, Exception] = {}
    while items.first < len(names):
        items.last_asked = None
        try:
            make_engine().run()
            break
        except Exception as error:
            if items.last_asked is None or isinstance(root_cause(error, WriteError), WriteError):
                raise
            name = names[items.last_asked]
            logger.exception("%s cannot be segmented", name)
            failed[name] = error
            after_failure(name)
            if same_reason_at_first(failed.values(), items.last_asked + 1):
                raise
            without_frames(error)
            items.first = items.last_asked + 1
    return failed
