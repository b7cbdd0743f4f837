# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events

from monai_fewshot.handlers import GlobalLoss
from monai_fewshot.utils import gather_or_raise, num_processes, process_rank, share_of_batch


def test_a_single_process_does_everything():
    assert (process_rank(), num_processes(), share_of_batch(5)) == (0, 1, 5)
    assert gather_or_raise(lambda: "done") == ["done"]


def _fail():
    raise KeyError("scan_3")


def _in_a_group(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    try:
        assert (process_rank(), num_processes(), share_of_batch(6)) == (rank, 2, 3)
        assert gather_or_raise(lambda: 10 + rank) == [10, 11]
        with pytest.raises(ValueError, match="A batch of 5 episodes cannot be dealt out evenly to 2 processes"):
            share_of_batch(5)
        error, text = (RuntimeError, "process 1: KeyError: 'scan_3'") if rank == 0 else (KeyError, "scan_3")
        with pytest.raises(error, match=text):
            gather_or_raise(_fail if rank == 1 else lambda: None)
        losses = []
        trainer = Engine(lambda engine, batch: {"loss": torch.tensor(float(batch + rank))})
        GlobalLoss().attach(trainer)

        @trainer.on(Events.ITERATION_COMPLETED)
        def log():
            losses.append(trainer.state.output["loss"].item())

        trainer.run([1, 4])
        assert losses == [1.5, 4.5]
    finally:
        dist.destroy_process_group()


def test_a_group_shares_results_errors_and_losses(tmp_path):
    torch.multiprocessing.spawn(_in_a_group, (str(tmp_path),), nprocs=2)
