# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from monai_fewshot.utils import WriteError, root_cause, same_reason_at_first, without_frames

__all__ = ["BackgroundWriting"]

logger = logging.getLogger(__name__)


class BackgroundWriting:
    """Writes the results of a scan in a thread, while the next one is segmented.

    One scan is written at a time: whoever gives the next one waits, so that no more than two are in memory.

    Args:
        after_failure: is given the name of each scan whose results could not be made.

    Attributes:
        failed: error of each scan whose results could not be made, by its name.
    """

    def __init__(self, after_failure: Callable[[str], None] = lambda name: None) -> None:
        self.after_failure = after_failure
        self.failed: dict[str, Exception] = {}
        self._pool = ThreadPoolExecutor(1, "writing")
        self._ended = 0
        self._begun: tuple[str, Future] | None = None

    def __call__(self, name: str, write: Callable[[], None]) -> None:
        """Write the results of a scan, after those of the one before.

        Args:
            name: of the scan.
            write: does it.

        Raises:
            WriteError: where the scan before could not be written, for then no other would fare better.
        """
        self.wait()
        self._begun = name, self._pool.submit(write)

    def wait(self) -> None:
        """Wait for the scan that is being written.

        Raises:
            WriteError: where it could not be written, or the results of the first three cannot be made for the same
                reason.
        """
        if self._begun is None:
            return
        (name, future), self._begun = self._begun, None
        self._ended += 1
        try:
            future.result()
        except Exception as error:
            if isinstance(root_cause(error, WriteError), WriteError):
                raise
            logger.exception("%s: its results cannot be made", name)
            self.failed[name] = without_frames(error)
            self.after_failure(name)
            if reason := same_reason_at_first(self.failed.values(), self._ended):
                raise WriteError(f"The results of the first {self._ended} scans cannot be made: {reason}") from None

    def close(self) -> None:
        """Wait for the scan that is being written, and end the thread; see :meth:`wait`."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()
