# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Two processes that form a group, started as torchrun does it."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from interruptions import PATIENCE

from monai_fewshot.utils import end_process_group, start_process_group

TOLD = "RuntimeError: Stopped, because of an error in another process. process {}: {}"


def in_two_processes(work, folder):
    """Run ``work(rank, folder)`` in two processes of a group on the CPU.

    Returns:
        What each of them returns.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    started = torch.multiprocessing.start_processes(_work, (work, folder, store.port), nprocs=2, join=False)
    deadline = time.monotonic() + PATIENCE
    try:
        while not started.join(1):
            assert time.monotonic() < deadline, "The processes wait for one another."
    finally:
        for process in started.processes:
            process.kill()
    return [pickle.loads((folder / f"found_{rank}").read_bytes()) for rank in range(2)]


def error_of(work, *args, **settings):
    """Name and text of the error that something ends with."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        work(*args, **settings)
    return f"{caught.type.__name__}: {caught.value}"


def failing(here, error, work=None):
    """Something that fails in one process, and in the other does its work, if any."""

    def work_or_fail(*args, **settings):
        if here:
            raise error
        return None if work is None else work(*args, **settings)

    return work_or_fail


class Exchanged:
    """The objects that this process gives to all others, and to the first one alone."""

    def __init__(self):
        self.to_all, self.to_first = [], []
        all_gather, gather = dist.all_gather_object, dist.gather_object
        dist.all_gather_object = lambda parts, part: self.to_all.append(part) or all_gather(parts, part)
        dist.gather_object = lambda part, parts, dst: self.to_first.append(part) or gather(part, parts, dst)

    def sizes(self):
        """Their bytes."""
        return {name: [len(pickle.dumps(part)) for part in parts] for name, parts in vars(self).items()}


def _work(rank, work, folder, port):
    os.environ |= {
        "CUDA_VISIBLE_DEVICES": "",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "LOCAL_WORLD_SIZE": "2",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": str(rank),
        "RANK": str(rank),
    }
    torch.set_num_threads(1)
    start_process_group()
    try:
        (Path(folder) / f"found_{rank}").write_bytes(pickle.dumps(work(rank, folder)))
    finally:
        end_process_group()
