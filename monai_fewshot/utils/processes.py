# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import ignite.distributed as idist
import torch
import torch.distributed as dist
from monai.config import PathLike

__all__ = [
    "agree_on_file",
    "end_process_group",
    "gather_in_all",
    "gather_in_first",
    "mean_over_processes",
    "num_processes",
    "process_device",
    "process_rank",
    "run_in_first",
    "run_together",
    "share_of_batch",
    "start_process_group",
    "sum_over_processes",
    "whole_batch",
]

P = ParamSpec("P")
Result = TypeVar("Result")

LONGEST_WAIT = timedelta(days=7)
"""How long processes wait for one another, a week: one may evaluate a large share, or label scans, for hours while the
others have finished. What a shorter limit would notice, a process that has died, torchrun notices at once."""
LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def start_process_group() -> None:
    """Join the other processes where torchrun has started several, and take the GPU that is meant for this one.

    Tensors on GPUs travel by NCCL; those on the CPU, and objects, by gloo. Processes wait a week for one another, where
    torch's default is ten minutes. Does nothing in a process that torchrun has not started.

    Raises:
        RuntimeError: where torchrun has started more processes than there are GPUs.
    """
    if not _is_launched():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(_own_gpu())
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=LONGEST_WAIT)
    else:
        dist.init_process_group("gloo", timeout=LONGEST_WAIT)
    # By itself ignite asks all processes where they run when it is first used, which a single one may come to alone.
    idist.sync(temporary=True)


def end_process_group() -> None:
    """Leave the process group; does nothing where there is none, such as after a failed start.

    Call it in a ``finally`` block, too: while an error passes through, this process does not wait for what others have
    yet to send, for they may be waiting for this one.
    """
    group = dist.group.WORLD
    if group is not None:
        if sys.exc_info()[0] is not None:
            group.abort()
        dist.destroy_process_group()
        idist.sync(temporary=True)


def process_device() -> torch.device:
    """The device of this process: under torchrun its own GPU, else the current one; or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", _own_gpu() if _is_launched() else torch.cuda.current_device())


def process_rank() -> int:
    """Rank of this process in its group; 0 outside of one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def num_processes() -> int:
    """Number of processes of the group; 1 outside of one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def share_of_batch(batch_size: int) -> int:
    """Divide a global batch among the processes.

    Args:
        batch_size: episodes of the global batch.

    Returns:
        Episodes of each process.

    Raises:
        ValueError: where the processes would have unequal shares.
    """
    if batch_size % num_processes():
        raise ValueError(
            f"A batch of {batch_size} episodes cannot be dealt out evenly to {num_processes()} processes: choose a "
            "--batch_size that is a multiple of their number, or another --nproc_per_node."
        )
    return batch_size // num_processes()


def run_together(work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Do something in every process, wait until all have done it, and go on only if all have succeeded.

    A process that fails alone would leave the others waiting for it wherever they next exchange something.

    Args:
        work: what to do; it must not exchange anything with other processes.
        args: its arguments.
        kwargs: its arguments by name.

    Returns:
        The result of this process.

    Raises:
        Exception: what ``work`` raises.
        RuntimeError: where ``work`` has failed in other processes only, with the reason.
    """
    if num_processes() == 1:
        return work(*args, **kwargs)
    try:
        result = work(*args, **kwargs)
    except Exception as error:
        gather_in_all(f"{type(error).__name__}: {error}")
        raise
    reasons = gather_in_all(None)
    failed = [f"process {rank}: {reason}" for rank, reason in enumerate(reasons) if reason is not None]
    if failed:
        raise RuntimeError(f"Stopped, because of an error in another process. {'; '.join(failed)}")
    return result


def run_in_first(work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Do something in the process of rank 0 alone, such as writing a file; the others wait, and fail where it fails.

    Args:
        work: what to do; it must not exchange anything with other processes.
        args: its arguments.
        kwargs: its arguments by name.

    Raises:
        Exception: in the first process, what ``work`` raises.
        RuntimeError: in the others, where ``work`` has failed in the first one, with the reason.
    """
    run_together(lambda: work(*args, **kwargs) if process_rank() == 0 else None)


def gather_in_all(part: Result) -> list[Result]:
    """Send something to all processes.

    Args:
        part: what this process has; it can be pickled.

    Returns:
        The parts of all, by rank.
    """
    if num_processes() == 1:
        return [part]
    parts: list[Any] = [None] * num_processes()
    dist.all_gather_object(parts, part)
    return parts


def gather_in_first(part: Result) -> list[Result]:
    """Send something to the process of rank 0.

    Args:
        part: what this process has; it can be pickled.

    Returns:
        In the first process the parts of all, by rank; in the others an empty list.
    """
    if num_processes() == 1:
        return [part]
    parts: list[Any] = [None] * num_processes() if process_rank() == 0 else []
    dist.gather_object(part, parts or None, dst=0)
    return parts


def mean_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """Average a tensor over the processes of the group; outside of one it is returned as it is."""
    if num_processes() == 1:
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total / num_processes()


def sum_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """Add up a tensor over the processes of the group; outside of one it is returned as it is.

    What a loss makes of the sum is the same in all processes, and their gradients, averaged as
    ``DistributedDataParallel`` does it, are those of the whole batch.
    """
    if num_processes() == 1:
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    own = num_processes() * tensor
    return total + (own - own.detach())


def whole_batch(share: torch.Tensor) -> torch.Tensor:
    """Put together the shares that processes have of a batch, in the order in which it was dealt out.

    Args:
        share: (B, ...), of the same shape in all processes; it gets no gradient.

    Returns:
        (B P, ...) for P processes; sample i of process r is number i P + r.
    """
    if num_processes() == 1:
        return share
    shares = [torch.empty_like(share, memory_format=torch.contiguous_format) for _ in range(num_processes())]
    dist.all_gather(shares, share.detach().contiguous())
    return torch.stack(shares, 1).flatten(0, 1)


def agree_on_file(file: PathLike | bool | None, folder: PathLike) -> None:
    """Check that all processes have found the same in a folder.

    Args:
        file: a file, whether there is one, or None.
        folder: where this process has looked.

    Raises:
        ValueError: in all processes, where they have found different files.
    """
    if num_processes() > 1:
        found_by_all = [str(each) for each in gather_in_all(file)]
        if len(set(found_by_all)) > 1:
            raise ValueError(
                f"Processes see different files in {folder}: {', '.join(found_by_all)}. Name a folder that all of them "
                "share."
            )


def _is_launched() -> bool:
    return all(name in os.environ for name in LAUNCH_VARIABLES)


def _own_gpu() -> int:
    local_rank, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    processes = max(local_rank + 1, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    if processes > gpus:
        raise RuntimeError(
            f"{processes} processes were started on a machine with {gpus} GPU(s), of which each needs one: use "
            f"--nproc_per_node={gpus} or less, or set CUDA_VISIBLE_DEVICES= (nothing) to run them on the CPU."
        )
    return local_rank
