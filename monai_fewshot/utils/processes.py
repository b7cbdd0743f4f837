# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

__all__ = ["gather_or_raise", "num_processes", "process_rank", "share_of_batch"]

Result = TypeVar("Result")


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


def gather_or_raise(work: Callable[[], Result]) -> list[Result]:
    """Do something in every process and give each of them what all have got.

    Args:
        work: what to do; the result must be picklable.

    Returns:
        The results, by rank.

    Raises:
        RuntimeError: in every other process, where it fails in one; that one raises its own error.
    """
    if num_processes() == 1:
        return [work()]
    outcome: tuple[Any, str | None]
    failure: Exception | None = None
    try:
        outcome = (work(), None)
    except Exception as error:
        failure, outcome = error, (None, f"{type(error).__name__}: {error}")
    outcomes: list[Any] = [None] * num_processes()
    dist.all_gather_object(outcomes, outcome)
    if failure is not None:
        raise failure
    failed = [f"process {rank}: {text}" for rank, (_, text) in enumerate(outcomes) if text is not None]
    if failed:
        raise RuntimeError(f"Stopped, because of an error in another process. {'; '.join(failed)}")
    return [result for result, _ in outcomes]
