# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Exemplar training in two processes (gloo) against one."""

from __future__ import annotations

import contextlib
import functools
import io
import logging

import pytest
import torch
from exemplar_runs import OTHERS, StoppingLoss, equal, network, samples, training, weights
from interruptions import wait_until
from process_groups import TOLD, Exchanged, error_of, failing, in_two_processes

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


class FailingNetwork(torch.nn.Module):
    def forward(self, image):
        if process_rank() == 1:
            raise ValueError("no labels")
        return image.repeat(1, 2, 1, 1)


class LateNetwork(torch.nn.Module):
    """Labels by brightness; in one process only when the other has labeled all of its slices."""

    def __init__(self, rank, folder):
        super().__init__()
        self.rank, self.folder, self.left = rank, folder, 4

    def forward(self, image):
        if self.rank == 1:
            wait_until((self.folder / "labeled_by_0").exists)
        self.left -= 1
        if self.rank == 0 and not self.left:
            (self.folder / "labeled_by_0").touch()
        return torch.cat([torch.full_like(image, 0.75), image, 1 - image], dim=1)


def labels_of_late_network(rank, folder):
    exchanged = Exchanged()
    label = pseudo_labels(LateNetwork(rank, folder), OTHERS, batch_size=1).label
    return label, exchanged.to_all, exchanged.to_first


def failures(rank, folder):
    """Errors where one process cannot write or read a file."""
    full = OSError("No space left on device")
    found, write, load = {}, exemplar_training.save_checkpoint, exemplar_training.load_network
    exemplar_training.save_checkpoint = failing(rank == 0, full)
    found["write"] = error_of(run(folder / "unwritten", rounds=0).run)
    exemplar_training.save_checkpoint = write
    exemplar_training.load_network = failing(rank == 1, ValueError("half a file"))
    found["load"] = error_of(run(folder / "whole", resume=True).run)
    exemplar_training.load_network = load
    return found


def in_a_group(rank, folder):
    found, written = {"seen": []}, []
    write = exemplar_training.save_checkpoint
    exemplar_training.save_checkpoint = lambda content, path: written.append(str(path)) or write(content, path)
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
        **failures(rank, folder),
    }
    found["late"] = labels_of_late_network(rank, folder)
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group")
    return folder, in_two_processes(in_a_group, folder)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder, seen = tmp_path_factory.mktemp("alone"), []
    return folder, run(folder, seen).run().state_dict(), seen


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name] - tensor).norm() <= 1e-3 * tensor.norm(), name


def test_two_processes_train_as_one_does_with_their_common_batches(both, alone):
    folder, found = both
    other, expected, _ = alone
    assert_close(weights(folder / "whole" / "stage_1" / "model.pt"), weights(other / "stage_1" / "model.pt"))
    for each in found:
        assert_close(each["network"], expected)
    assert equal(found[0]["network"], found[1]["network"])
    start = network().state_dict()
    moved = max((expected[name] - tensor).norm() / tensor.norm() for name, tensor in start.items() if tensor.norm())
    assert moved > 0.05


def test_all_processes_learn_from_the_pseudo_labels_of_one(both, alone):
    folder, found = both
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
    folder, (first, second) = both
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
    _, found = both
    assert all(equal(each["resumed"], each["network"]) for each in found)


def test_one_process_goes_on_where_two_have_stopped(both, alone):
    folder, _ = both
    assert not (folder / "handed over" / "stage_2" / "model.pt").exists()
    assert_close(run(folder / "handed over", resume=True).run().state_dict(), alone[1])


def test_running_statistics_are_those_that_are_saved(both):
    folder, found = both
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
    folder, found = both
    assert all(text in each["errors"][name] for each in found)
    assert not list((folder / name).glob("[!.]*"))


@pytest.mark.parametrize(
    ("place", "rank", "reason"),
    [
        ("labels", 1, "ValueError: no labels"),
        ("write", 0, "OSError: No space left on device"),
        ("load", 1, "ValueError: half a file"),
    ],
)
def test_an_error_in_one_process_ends_all_with_its_reason(both, place, rank, reason):
    errors = [each["errors"][place] for each in both[1]]
    assert errors[rank] == reason
    assert errors[1 - rank] == TOLD.format(rank, reason)


def test_label_maps_travel_as_tensors_to_all(both):
    for label, to_all, to_first in (each["late"] for each in both[1]):
        assert torch.equal(label, pseudo_labels(LateNetwork(0, both[0]), OTHERS, batch_size=1).label)
        assert label.unique().tolist() == [0, 1, 2]
        assert (to_all, to_first) == ([None], [])


def stop_in_one_process(rank, folder):
    run(folder / "broken", loss=StoppingLoss(1, 2, ArithmeticError, rank == 1), rounds=0).run()


def test_an_error_in_one_process_ends_the_training(tmp_path):
    reasons = "ArithmeticError: stopped|Connection closed"
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match=reasons):
        in_two_processes(stop_in_one_process, tmp_path)
    assert not (tmp_path / "broken" / "stage_1" / "model.pt").exists()
