# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Exemplar training in two processes (gloo) against one."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from exemplar_runs import OTHERS, StoppingLoss, equal, network, samples, training, weights

from monai_fewshot.engines import exemplar_training, pseudo_labels
from monai_fewshot.utils import process_rank

pytestmark = pytest.mark.slow
MODELS = ["stage_1/model.pt", "stage_2/model.pt", "model.pt"]
CONFIDENCE = 0.7
SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def run(folder, seen=None, **settings):
    """Train as one process does with global batches of 4, or several with shares of them."""
    torch.manual_seed(3)
    own = samples(10)

    def make(unlabeled=None):
        if seen is not None:
            seen.append(unlabeled)
        return own(unlabeled=unlabeled)

    # Batches of 4, 4 and 2 samples.
    plain = {"batch_size": 4, "samples": make, "optimizer": SGD, "min_confidence": CONFIDENCE, "has_truth": True}
    return training(folder, **{**plain, **settings})


def error_of(work):
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


class FailingNetwork(torch.nn.Module):
    def forward(self, image):
        if process_rank() == 1:
            raise ValueError("no labels")
        return image.repeat(1, 2, 1, 1)


def in_a_group(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    folder = Path(folder)
    found, written = {"seen": []}, []
    write = exemplar_training.write_atomically
    exemplar_training.write_atomically = lambda path, content: written.append(str(path)) or write(path, content)
    texts = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    with contextlib.redirect_stderr(io.StringIO()) as bar:
        found["network"] = run(folder / "whole", found["seen"]).run().state_dict()
    found |= {"texts": [*texts], "bar": bar.getvalue(), "written": [*written]}
    found["labels"] = {size: pseudo_labels(network(), OTHERS, batch_size=size).label for size in (1, 3, 7)}
    for name in ("parts", "handed over"):
        with contextlib.suppress(KeyboardInterrupt):
            run(folder / name, loss=StoppingLoss(2, 5)).run()
    found["resumed"] = run(folder / "parts", resume=True).run().state_dict()
    found["batch norm"] = run(folder / "norm", rounds=0, network=network(norm="batch")).run().state_dict()
    found["errors"] = {
        "batch": error_of(run(folder / "batch", batch_size=3).run),
        "odd": error_of(run(folder / "odd", samples=samples(9)).run),
        "few": error_of(run(folder / "few", samples=samples(1)).run),
        "folder": error_of(run(folder / ("whole" if rank else "elsewhere"), resume=True).run),
        "labels": error_of(lambda: pseudo_labels(FailingNetwork(), OTHERS, batch_size=2)),
    }
    torch.save(found, folder / f"{rank}.pt")
    run(folder / "broken", loss=StoppingLoss(1, 2, ArithmeticError, rank == 1), rounds=0).run()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group")
    start = time.monotonic()
    with pytest.raises(torch.multiprocessing.ProcessRaisedException) as error:
        torch.multiprocessing.spawn(in_a_group, (str(folder),), nprocs=2)
    found = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]
    return folder, found, str(error.value), time.monotonic() - start


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder, seen = tmp_path_factory.mktemp("alone"), []
    return folder, run(folder, seen).run().state_dict(), seen


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name] - tensor).norm() <= 1e-3 * tensor.norm(), name


def test_two_processes_train_as_one_does_with_their_common_batches(both, alone):
    folder, found, _, _ = both
    other, expected, _ = alone
    assert_close(weights(folder / "whole" / "stage_1" / "model.pt"), weights(other / "stage_1" / "model.pt"))
    for each in found:
        assert_close(each["network"], expected)
    assert equal(found[0]["network"], found[1]["network"])
    start = network().state_dict()
    moved = max((expected[name] - tensor).norm() / tensor.norm() for name, tensor in start.items() if tensor.norm())
    assert moved > 0.05


def test_all_processes_learn_from_the_pseudo_labels_of_one(both, alone):
    folder, found, _, _ = both
    first, second = (each["seen"] for each in found)
    assert [stack is None for stack in first] == [stack is None for stack in second] == [True, False]
    assert torch.equal(first[1].label, second[1].label)
    assert (first[1].label != alone[2][1].label).float().mean() < 0.01
    assert 0.02 < (first[1].label == 255).float().mean() < 0.98
    trained = network()
    trained.load_state_dict(weights(folder / "whole" / "stage_1" / "model.pt"))
    assert torch.equal(first[1].label, pseudo_labels(trained, OTHERS, CONFIDENCE, None, 12).label)
    for size, labels in found[0]["labels"].items():
        assert torch.equal(labels, found[1]["labels"][size])
        assert torch.equal(labels, pseudo_labels(network(), OTHERS, batch_size=size).label)


def test_the_first_process_alone_writes_and_talks(both, alone):
    folder, (first, second), _, _ = both
    assert first["written"] == [str(folder / "whole" / name) for name in MODELS]
    assert second["written"] == []
    assert sorted(path.name for path in (folder / "whole" / "stage_1").iterdir()) == sorted(
        path.name for path in (alone[0] / "stage_1").iterdir()
    )
    assert len(list((folder / "whole" / "stage_1" / "logs").iterdir())) == 1
    assert any("After stage 1" in text and "Dice" in text for text in first["texts"])
    assert any("Engine run" in text for text in first["texts"])
    assert second["texts"] == []
    assert "stage_1" in first["bar"]
    assert "stage_" not in second["bar"]


def test_a_stopped_training_goes_on_exactly_in_several_processes(both):
    _, found, _, _ = both
    assert all(equal(each["resumed"], each["network"]) for each in found)


def test_one_process_goes_on_where_two_have_stopped(both, alone):
    folder, _, _, _ = both
    assert not (folder / "handed over" / "stage_2" / "model.pt").exists()
    assert_close(run(folder / "handed over", resume=True).run().state_dict(), alone[1])


def test_running_statistics_are_those_that_are_saved(both):
    folder, found, _, _ = both
    saved = weights(folder / "norm" / "stage_1" / "model.pt")
    assert any("running_mean" in name for name in saved)
    assert all(equal(each["batch norm"], saved) for each in found)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("batch", "A batch of 3 episodes cannot be dealt out evenly to 2 processes"),
        ("odd", "ValueError: An epoch of 9 samples in batches of 4 ends with one of 1, which cannot be dealt out "),
        ("few", "ValueError: An epoch of 1 samples in batches of 4 ends with one of 1, which cannot be dealt out "),
        ("folder", "ValueError: Processes see different files in "),
    ],
)
def test_what_cannot_be_shared_is_refused_by_all(name, text, both):
    folder, found, _, _ = both
    assert all(text in each["errors"][name] for each in found)
    assert not (folder / name).exists()


def test_an_error_while_labeling_ends_all_with_its_reason(both):
    _, (first, second), _, _ = both
    assert first["errors"]["labels"] == (
        "RuntimeError: Stopped, because of an error in another process. process 1: ValueError: no labels"
    )
    assert second["errors"]["labels"] == "ValueError: no labels"


def test_an_error_in_one_process_ends_the_training(both):
    folder, _, error, seconds = both
    assert "ArithmeticError: stopped" in error or "Connection closed" in error
    assert seconds < 600
    assert not (folder / "broken" / "stage_1" / "model.pt").exists()
