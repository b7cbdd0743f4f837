# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Processes that form a group, as torchrun makes one."""

from __future__ import annotations

import functools
import multiprocessing
import os
import pickle
import runpy
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from interruptions import PATIENCE

from monai_fewshot.utils import end_process_group, start_process_group

TOLD = "RuntimeError: Stopped, because of an error in another process. process {}: {}"


PRELOADED = ["monai.bundle", "monai_fewshot.workflows", "torch._dynamo"]


def in_two_processes(work, folder):
    """Run ``work(rank, folder)`` in two processes of a group on the CPU.

    Returns:
        What each of them returns.
    """
    return in_processes(functools.partial(_in_group, work), folder)


def in_processes(work, folder, number=2):
    """Run ``work(rank, folder)`` in processes that can form a group on the CPU, but do not yet.

    They are forked from a process that has imported what they need, which it does once for all tests.

    Returns:
        What each of them returns.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    variables = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "LOCAL_WORLD_SIZE": str(number),
        "WORLD_SIZE": str(number),
    }
    arguments = (work, folder, variables)
    started = torch.multiprocessing.start_processes(_work, arguments, number, join=False, start_method="forkserver")
    deadline = time.monotonic() + PATIENCE
    try:
        while not started.join(1):
            assert time.monotonic() < deadline, "The processes wait for one another."
    finally:
        for process in started.processes:
            process.kill()
    return [pickle.loads((folder / f"found_{rank}").read_bytes()) for rank in range(number)]


def run_bundle(configs, name, number, settings, folder):
    """Run a configuration of a bundle in processes, as torchrun would.

    Args:
        configs: folder of the configurations.
        name: of the file.
        number: of processes; one is on its own.
        settings: by name.
        folder: which is made, for what the processes have to say.

    Returns:
        What all have printed, and the traceback of each; None with those that succeeded.
    """
    folder.mkdir()
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    words = ["run", "--config_file", str(configs / f"{name}.json"), *words]
    errors = in_processes(functools.partial(_bundle, words), folder, number)
    return "".join((folder / f"log_{rank}").read_text() for rank in range(number)), errors


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


def _work(rank, work, folder, variables):
    os.environ.clear()
    os.environ.update(variables, LOCAL_RANK=str(rank), RANK=str(rank))
    torch.set_num_threads(1)
    (Path(folder) / f"found_{rank}").write_bytes(pickle.dumps(work(rank, folder)))


def _in_group(work, rank, folder):
    start_process_group()
    try:
        return work(rank, folder)
    finally:
        end_process_group()


def _bundle(words, rank, folder):
    with open(folder / f"log_{rank}", "w") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    sys.argv = ["monai.bundle", *words]
    try:
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    except Exception:
        return traceback.format_exc()
    return None
