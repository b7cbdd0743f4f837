# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from tqdm import tqdm

from monai_fewshot.utils import num_processes, process_rank, root_cause, run_together

__all__ = ["prepare_scans", "read_scans"]

Item = TypeVar("Item")
SECONDS_BETWEEN_LOG_LINES = 10


def read_scans(
    scans: Sequence[Item],
    num_workers: int | None = None,
    indices: Sequence[int] | None = None,
    description: str = "reading scans",
) -> Iterator[Item]:
    """Load and transform scans in parallel, in order, with a progress bar on standard error.

    Threads do it, for what takes long lets go of Python's global lock: superpixels and supervoxels for 97 % of their
    time, decompression and most of numpy too. So scans need neither be copied between processes nor pass through shared
    memory. No more scans are begun ahead of the reader than there are threads. Inside a thread torch computes on one
    core. On Ctrl-C or an error the scans being worked on are given up; what a cache of pseudo-labels holds by then
    stays.

    Args:
        scans: what gives a scan for an index, such as a ``monai.data.Dataset`` with its transform.
        num_workers: threads, each of which holds one scan in memory; 0 works in the calling thread. Defaults to None:
            one for every core that this process may use, the processes of torchrun on one machine sharing them.
        indices: which scans to read. Defaults to None, all.
        description: of the progress bar.

    Yields:
        The scans, in the order of ``indices``.

    Raises:
        ValueError: where a scan cannot be loaded or transformed; the text names it and tells why.

    Example:
        >>> from monai.data import Dataset
        >>> list(read_scans(Dataset([1, 2, 3], lambda scan: 10 * scan), num_workers=2))
        [10, 20, 30]
    """
    indices = range(len(scans)) if indices is None else indices
    workers = min(share_of_cores() if num_workers is None else num_workers, len(indices))
    interval = 0.1 if sys.stderr.isatty() else SECONDS_BETWEEN_LOG_LINES
    with tqdm(
        total=len(indices), desc=description, unit="scan", mininterval=interval, disable=process_rank() > 0
    ) as bar:
        for scan in _in_threads(scans, indices, workers) if workers else (_read(scans, index) for index in indices):
            bar.update()
            yield scan


def prepare_scans(scans: Sequence[Item], num_workers: int | None = None) -> None:
    """Let each process of a distributed run read its share of the scans once, and wait until all have.

    Where the transform has a cache for pseudo-labels, they are then computed once and not by every process anew. Does
    nothing outside of a distributed run.

    Args:
        scans: as for :func:`read_scans`, the same in all processes.
        num_workers: as for :func:`read_scans`.

    Raises:
        ValueError: where a scan of this process's share cannot be loaded or transformed.
        RuntimeError: where one of another process's share cannot, with the reason.
    """
    if num_processes() > 1:
        share = range(process_rank(), len(scans), num_processes())
        run_together(deque, read_scans(scans, num_workers, share, "preparing scans"), maxlen=0)


def _in_threads(scans: Sequence[Item], indices: Sequence[int], workers: int) -> Iterator[Item]:
    threads_of_torch = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    busy: set[int] = set()
    try:
        begun = deque(pool.submit(_read_in_thread, scans, index, busy) for index in indices[:workers])
        for index in indices[workers:]:
            yield begun.popleft().result()
            begun.append(pool.submit(_read_in_thread, scans, index, busy))
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for thread in list(busy):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_GivenUp))
        pool.shutdown()
        torch.set_num_threads(threads_of_torch)


class _GivenUp(BaseException):
    """Raised in a thread whose scan is no longer wanted, at its next line of Python."""


def _read_in_thread(scans: Sequence[Item], index: int, busy: set[int]) -> Item:
    thread = threading.get_ident()
    busy.add(thread)
    try:
        return _read(scans, index)
    finally:
        busy.discard(thread)


def _read(scans: Sequence[Item], index: int) -> Item:
    try:
        return scans[index]
    except Exception as error:
        reason = root_cause(error)
        raise ValueError(f"Scan {_name(scans, index)} cannot be read: {type(reason).__name__}: {reason}") from error


def _name(scans: Sequence[Item], index: int) -> str:
    entry = getattr(scans, "data", scans)[index]
    if not isinstance(entry, dict):
        return str(index)
    return " ".join(str(entry[key]) for key in ("name", "image") if isinstance(entry.get(key), str)) or str(index)


def share_of_cores() -> int:
    """Number of cores that this process may use, those of one machine divided among the processes of torchrun."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
