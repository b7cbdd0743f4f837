# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from datetime import timedelta

import ignite.distributed as idist
import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from interruptions import wait_until
from process_groups import TOLD, error_of, in_two_processes

from monai_fewshot.handlers import MeanLossOverProcesses
from monai_fewshot.utils import (
    agree_on_file,
    end_process_group,
    gather_in_first,
    mean_over_processes,
    num_processes,
    process_device,
    process_rank,
    run_in_first,
    run_together,
    share_of_batch,
    start_process_group,
    sum_over_processes,
    whole_batch,
)


def test_a_single_process_does_everything():
    assert (process_rank(), num_processes(), share_of_batch(5)) == (0, 1, 5)
    assert run_together(divmod, 7, 2) == (3, 1)
    assert gather_in_first("part") == ["part"]
    done = []
    run_in_first(done.append, "written")
    assert done == ["written"]
    agree_on_file("a.pt", "models")
    end_process_group()
    with pytest.raises(KeyError, match="scan_3"):
        run_together({}.__getitem__, "scan_3")


def _waits_for_all(rank, folder):
    def work():
        if rank == 1:
            wait_until((folder / "done_by_0").exists)
        (folder / f"done_by_{rank}").touch()
        return 10 + rank

    return run_together(work), sorted(file.name for file in folder.glob("done_by_*"))


def _written_by_the_first(rank, folder):
    run_in_first((folder / "written").write_text, f"by {rank}")
    return (folder / "written").read_text()


def _fail(text):
    raise KeyError(text)


def _errors(rank, folder):
    return {
        "second": error_of(run_together, *((_fail, "scan_3") if rank == 1 else (int,))),
        "both": error_of(run_together, _fail, f"scan_{rank}"),
        "first": error_of(run_in_first, _fail, "disk full"),
        "files": error_of(agree_on_file, f"epoch_{rank}.pt", folder),
        "batch": error_of(share_of_batch, 5),
    }


def _losses(rank):
    losses = []
    trainer = Engine(lambda engine, batch: {"loss": torch.tensor(float(batch + rank))})
    MeanLossOverProcesses().attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.append(trainer.state.output["loss"].item()))
    trainer.run([1, 4])
    return losses


def _sum(rank):
    """Value and gradient of something made of a sum."""
    numbers = torch.tensor([1.0, 2.0 + rank], requires_grad=True)
    (sum_over_processes(numbers) ** 2).sum().backward()
    return sum_over_processes(numbers).tolist(), numbers.grad.tolist()


def _in_a_group(rank, folder):
    found = {
        "who": (process_rank(), num_processes(), share_of_batch(6), process_device().type),
        "waits": _waits_for_all(rank, folder),
        "gathered": gather_in_first({"rank": rank}),
        "written": _written_by_the_first(rank, folder),
        "errors": _errors(rank, folder),
        "losses": _losses(rank),
        "sum": _sum(rank),
        "batch": whole_batch(torch.tensor([[10 * rank, 1], [10 * rank, 2]]).T).tolist(),
        "mean": mean_over_processes(torch.tensor([3 * rank, 1])).tolist(),
        # Only the first process asks, so that an ignite that asks all would wait.
        "ignite": (idist.get_rank(), idist.get_world_size()) if rank == 0 else None,
    }
    agree_on_file("epoch_1.pt", folder)
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return in_two_processes(_in_a_group, tmp_path_factory.mktemp("group"))


def test_processes_know_their_group(both):
    assert [found["who"] for found in both] == [(0, 2, 3, "cpu"), (1, 2, 3, "cpu")]
    assert both[0]["ignite"] == (0, 2)


def test_work_is_done_in_all_before_any_goes_on(both):
    assert [found["waits"] for found in both] == [(10, ["done_by_0", "done_by_1"]), (11, ["done_by_0", "done_by_1"])]


def test_the_first_process_gathers_and_writes(both):
    assert [found["gathered"] for found in both] == [[{"rank": 0}, {"rank": 1}], []]
    assert [found["written"] for found in both] == ["by 0", "by 0"]


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("second", [TOLD.format(1, "KeyError: 'scan_3'"), "KeyError: 'scan_3'"]),
        ("both", ["KeyError: 'scan_0'", "KeyError: 'scan_1'"]),
        ("first", ["KeyError: 'disk full'", TOLD.format(0, "KeyError: 'disk full'")]),
    ],
)
def test_an_error_in_one_process_ends_all_with_its_reason(both, name, texts):
    assert [found["errors"][name] for found in both] == texts


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("files", "ValueError: Processes see different files in "),
        ("batch", "ValueError: A batch of 5 episodes cannot be dealt out evenly to 2 processes"),
    ],
)
def test_what_differs_is_refused_by_all(both, name, text):
    assert all(found["errors"][name].startswith(text) for found in both)


def test_losses_are_averaged(both):
    assert [found["losses"] for found in both] == [[1.5, 4.5]] * 2
    assert [found["mean"] for found in both] == [[1.5, 1.0]] * 2
    alone = torch.tensor([3, 1])
    assert mean_over_processes(alone) is alone


def test_sums_have_the_gradients_that_are_averaged_to_those_of_all(both):
    assert [found["sum"] for found in both] == [([2.0, 5.0], [8.0, 20.0])] * 2, "twice 2 (1 + 1) and twice 2 (2 + 3)"
    alone = torch.tensor([3.0])
    assert sum_over_processes(alone) is alone


def test_shares_are_put_together_as_they_were_dealt_out(both):
    assert [found["batch"] for found in both] == [[[0, 0], [10, 10], [1, 2], [1, 2]]] * 2
    alone = torch.tensor([3.0])
    assert whole_batch(alone) is alone


def _fail_and_leave():
    try:
        raise ArithmeticError("only here")
    finally:
        end_process_group()


def _leaves_after_an_error(rank, folder):
    """One process fails alone and leaves, while the other waits for it in a sum."""
    if rank == 1:
        with pytest.raises(ArithmeticError):
            _fail_and_leave()
        (folder / "left").touch()
        return dist.is_initialized(), idist.get_world_size()
    error_of(dist.all_reduce, torch.ones(1))
    wait_until((folder / "left").exists)
    return None


def test_a_process_leaves_its_group_while_an_error_passes_through(tmp_path):
    assert in_two_processes(_leaves_after_an_error, tmp_path)[1] == (False, 1)


class _Started:
    """What a start with GPUs asks of torch."""

    def __init__(self, monkeypatch, gpus, rank, processes):
        for name in ("RANK", "LOCAL_RANK"):
            monkeypatch.setenv(name, str(rank))
        for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            monkeypatch.setenv(name, str(processes))
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", "29500")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "set_device", self.take)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: self.gpu)
        monkeypatch.setattr(dist, "init_process_group", self.join)
        self.gpu, self.backend, self.timeout = 0, None, None

    def take(self, gpu):
        self.gpu = gpu

    def join(self, backend, timeout):
        self.backend, self.timeout = backend, timeout


def test_a_process_takes_its_gpu_and_leaves_objects_to_gloo(monkeypatch):
    started = _Started(monkeypatch, gpus=4, rank=2, processes=3)
    start_process_group()
    assert started.backend == "cpu:gloo,cuda:nccl"
    assert started.timeout >= timedelta(days=1)
    assert process_device() == torch.device("cuda", 2)


def test_without_gpus_all_goes_through_gloo(monkeypatch):
    started = _Started(monkeypatch, gpus=0, rank=2, processes=3)
    start_process_group()
    assert started.backend == "gloo"
    assert started.timeout >= timedelta(days=1)
    assert process_device() == torch.device("cpu")


def test_more_processes_than_gpus_are_refused_by_all_of_them(monkeypatch):
    for rank in range(3):
        started = _Started(monkeypatch, gpus=2, rank=rank, processes=3)
        with pytest.raises(RuntimeError, match=r"3 processes .* 2 GPU\(s\).*--nproc_per_node=2 or less"):
            start_process_group()
        assert started.backend is None


def test_a_start_without_torchrun_does_nothing(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    start_process_group()
    assert not dist.is_initialized()
    assert (num_processes(), process_rank()) == (1, 0)
