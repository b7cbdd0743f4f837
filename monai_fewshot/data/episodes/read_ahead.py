# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils.data import Dataset

from monai_fewshot.data.scans.scan_reading import share_of_cores
from monai_fewshot.data.slices.free_memory import free_memory

__all__ = ["OneAtATime", "ReadAhead", "readers_for"]

MOST_READERS = 8
BYTES_PER_VOXEL = 16
"""Of a scan that is read ahead: as it was acquired, as it was prepared, and what that takes meanwhile."""
MEMORY_IF_UNKNOWN = 1 << 30


class ReadAhead(Dataset):
    """Reads the next items of a dataset in threads while an earlier one is worked on.

    Items are asked for in ascending order. No more are begun ahead of the one asked for than there are threads. An item
    that cannot be read raises its error when it is asked for.

    Args:
        items: a dataset that threads may read at once.
        workers: number of threads; 0 reads each item when it is asked for.

    Example:
        >>> list(map(ReadAhead([1, 2, 3], 2).__getitem__, range(3)))
        [1, 2, 3]
    """

    def __init__(self, items: Sequence[Any] | Dataset, workers: int) -> None:
        self.items = items
        self.workers = workers
        self.begun: dict[int, Future] = {}
        self.pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self.items)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        """Return an item, and begin to read those behind it."""
        if not self.workers:
            return self.items[index]
        if self.pool is None:
            # As many threads of torch as elsewhere, for sums depend on their number.
            threads = torch.get_num_threads()
            self.pool = ThreadPoolExecutor(self.workers, "reading", torch.set_num_threads, (threads,))
        for number in range(index, min(index + self.workers + 1, len(self))):
            if number not in self.begun:
                self.begun[number] = self.pool.submit(self.items.__getitem__, number)
        return self.begun.pop(index).result()

    def close(self) -> None:
        """Give up what is begun; a scan that is being read is read to its end."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
        self.pool, self.begun = None, {}


class OneAtATime:
    """Lets one thread at a time through a transform, or through several that share a lock.

    MONAI's transforms change a state of their own while they are inverted.

    Args:
        transform: the transform.
        lock: the lock.
    """

    def __init__(self, transform: Callable[[Any], Any], lock: AbstractContextManager[Any]) -> None:
        self.transform = transform
        self.lock = lock

    def __call__(self, data: Any) -> Any:
        """Apply the transform."""
        with self.lock:
            return self.transform(data)


def readers_for(voxels: int) -> int:
    """Choose how many scans are read ahead: those that fit in half of the free memory, one for each core at most.

    Args:
        voxels: of the largest scan.

    Returns:
        A number of threads from 0, where not even one fits, to 8.
    """
    free = free_memory()
    fitting = (MEMORY_IF_UNKNOWN if free is None else free) // (2 * BYTES_PER_VOXEL * max(voxels, 1))
    return min(fitting, share_of_cores(), MOST_READERS)
