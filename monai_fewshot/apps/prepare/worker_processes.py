# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from monai_fewshot.data.scans.scan_reading import share_of_cores
from monai_fewshot.utils import WriteError, root_cause

__all__ = ["Outcome", "run_in_processes"]

Item = TypeVar("Item")
Result = TypeVar("Result")
SECONDS_TO_END = 10.0


class Outcome(NamedTuple, Generic[Item, Result]):
    """What came of an item: its result, or an error as text; ``fatal`` where no other item would fare better."""

    item: Item
    result: Result | None
    error: str = ""
    fatal: bool = False


def run_in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], num_workers: int
) -> Iterator[Outcome[Item, Result]]:
    """Work on items in child processes, each of which has one item at a time.

    An item that fails, or whose process is killed, such as for want of memory, leaves the others alone. On Ctrl-C, an
    error of the caller or the end of the iteration, the processes are ended with what they are at, within seconds.
    They import the package once, and compute on the cores that this process may use, divided among them.

    Args:
        work: what to do with an item; it, the items and the results must be picklable.
        items: in the order in which they are begun.
        num_workers: processes; 0 works in the calling process.

    Yields:
        The outcomes, as they come.
    """
    if not num_workers:
        yield from (_outcome(work, item) for item in items)
        return
    waiting, busy, idle = deque(items), dict[Connection, _Worker](), list[_Worker]()
    num_workers = min(num_workers, len(items))
    num_threads = max(1, share_of_cores() // max(1, num_workers))
    try:
        while waiting or busy:
            while waiting and len(busy) < num_workers:
                worker = idle.pop() if idle else _Worker(work, num_threads)
                busy[worker.connection] = worker
                worker.begin(waiting.popleft())
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                outcome = worker.outcome()
                del busy[worker.connection]
                if worker.process.is_alive():
                    idle.append(worker)
                yield outcome
    finally:
        _end([*idle, *busy.values()])


class _Worker:
    """A child process and what it is at."""

    def __init__(self, work: Callable[[Any], Any], num_threads: int) -> None:
        context = _context()
        self.connection, far_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(far_end, work, num_threads), daemon=True)
        self.process.start()
        far_end.close()
        self.item: Any = None

    def begin(self, item: Any) -> None:
        self.item = item
        with suppress(BrokenPipeError):
            self.connection.send(item)

    def outcome(self) -> Outcome[Any, Any]:
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return Outcome(self.item, None, _cause_of_death(self.process.exitcode))


def _context() -> Any:
    """Processes that inherit nothing of this one's threads; where there is a fork server, they begin at once."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["monai_fewshot.apps.prepare"])
    return context


def _serve(connection: Connection, work: Callable[[Any], Any], num_threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    torch.set_num_threads(num_threads)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            connection.send(_outcome(work, connection.recv()))


def _outcome(work: Callable[[Item], Result], item: Item) -> Outcome[Item, Result]:
    try:
        return Outcome(item, work(item))
    except Exception as error:
        reason = root_cause(error, ValueError)
        text = str(reason) if isinstance(reason, ValueError) else f"{type(reason).__name__}: {reason}"
        return Outcome(item, None, text, isinstance(reason, WriteError))


def _cause_of_death(exit_code: int | None) -> str:
    memory = " Most often the memory is full then: work with fewer workers." if exit_code == -signal.SIGKILL else ""
    return f"its process ended with exit code {exit_code}.{memory}"


def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.connection.close()
        worker.process.terminate()
    for worker in workers:
        worker.process.join(SECONDS_TO_END)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
