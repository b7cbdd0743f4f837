# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import re
from functools import partial

import pytest
import torch
from ignite.engine import Engine, Events
from process_groups import TOLD, error_of, failing, in_two_processes
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, PolynomialLR, StepLR

from monai_fewshot.handlers import BestModelSaver, FinalModelSaver, TrainingCheckpoints, training_checkpoints
from monai_fewshot.utils import Provenance


class _Training:
    """A training whose weights depend on every random draw so far, with validation scores as given."""

    def __init__(self, folder, scores, resume=False, schedule=None, **records):
        torch.manual_seed(0)
        self.network = nn.Linear(2, 2)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), 0.1)
        self.evaluator, self.trainer = Engine(lambda *_: None), Engine(self.step)
        self.best = best = BestModelSaver(str(folder), {"model": self.network})
        best.attach(self.evaluator)
        self.scores = scores
        self.evaluator.add_event_handler(Events.EPOCH_STARTED, self.score)
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _engine: self.evaluator.run([0]))
        objects = {"model": self.network, "optimizer": self.optimizer, "best_model": best, **records}
        if schedule is not None:
            self.schedule = objects["lr_scheduler"] = schedule(self.optimizer)
            self.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _engine: self.schedule.step())
        TrainingCheckpoints(folder, objects, resume).attach(self.trainer)
        self.draws, self.rates = [], []

    def step(self, _engine, _batch):
        self.draws.append(torch.rand(1).item())
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.optimizer.zero_grad()
        self.network(torch.rand(3, 2)).square().sum().backward()
        self.optimizer.step()

    def score(self, engine):
        engine.state.key_metric_name = "dice"
        engine.state.metrics["dice"] = self.scores[self.trainer.state.epoch - 1]

    def run(self, epochs):
        self.trainer.run([0, 1, 2], max_epochs=epochs)
        return self


def _weights(file):
    content = torch.load(file, weights_only=True)
    return content.get("model", content)["weight"]


def test_two_checkpoints_are_kept(tmp_path):
    training = _Training(tmp_path, [0.1] * 5).run(5)
    assert {file.name for file in tmp_path.glob("checkpoint*")} == {"checkpoint_epoch=4.pt", "checkpoint_epoch=5.pt"}
    saved = torch.load(tmp_path / "checkpoint_epoch=5.pt", weights_only=True)
    assert set(saved) == {"model", "optimizer", "best_model", "random_state", "trainer"}
    assert (saved["trainer"]["iteration"], saved["trainer"]["max_epochs"]) == (15, 5)
    assert torch.equal(saved["model"]["weight"], training.network.weight)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_training_goes_on_exactly(tmp_path, stop):
    scores = [0.2, 0.5, 0.1, 0.6, 0.3]
    whole = _Training(tmp_path / "whole", scores).run(5)
    _Training(tmp_path / "parts", scores).run(stop)
    resumed = _Training(tmp_path / "parts", scores, resume=True)
    torch.manual_seed(99)
    resumed.run(5)
    assert resumed.draws == whole.draws[3 * stop :]
    assert torch.equal(resumed.network.weight, whole.network.weight)
    for name in ("checkpoint_epoch=5.pt", "model.pt"):
        assert torch.equal(_weights(tmp_path / "parts" / name), _weights(tmp_path / "whole" / name))


def test_a_worse_model_never_replaces_the_best_one(tmp_path):
    _Training(tmp_path, [0.3, 0.9]).run(2)
    best = _weights(tmp_path / "model.pt")
    assert torch.equal(best, _weights(tmp_path / "checkpoint_epoch=2.pt"))
    _Training(tmp_path, [0.3, 0.9, 0.5, 0.8], resume=True).run(4)
    assert torch.equal(_weights(tmp_path / "model.pt"), best)
    _Training(tmp_path, [0.3, 0.9, 0.5, 0.8, 0.95], resume=True).run(5)
    assert torch.equal(_weights(tmp_path / "model.pt"), _weights(tmp_path / "checkpoint_epoch=5.pt"))


def test_resume_in_an_empty_folder_begins_anew(tmp_path):
    first, second = (
        _Training(tmp_path / name, [0.1, 0.2], resume).run(2) for name, resume in (("a", True), ("b", False))
    )
    assert torch.equal(first.network.weight, second.network.weight)


def test_checkpoints_are_not_overwritten(tmp_path):
    _Training(tmp_path, [0.1]).run(1)
    with pytest.raises(ValueError, match="holds checkpoints of an earlier training"):
        _Training(tmp_path, [0.1])


def test_training_less_than_was_done_is_an_error(tmp_path):
    _Training(tmp_path, [0.1, 0.1, 0.1]).run(3)
    training = _Training(tmp_path, [0.1, 0.1], resume=True)
    with pytest.raises(ValueError, match=r"epoch=3.pt has 3 epochs behind it, .* max_epochs 2: give --max_epochs 3 or"):
        training.run(2)


def test_epochs_of_another_length_are_an_error(tmp_path):
    _Training(tmp_path, [0.1]).run(1)
    training = _Training(tmp_path, [0.1, 0.1], resume=True)
    with pytest.raises(ValueError, match=r"with epoch_length 3, and this one has 2: keep --epoch_length 3, and change"):
        training.trainer.run([0, 1], max_epochs=2)


@pytest.mark.parametrize("length", [15, 9, 6])
@pytest.mark.parametrize(
    ("schedule", "factor"),
    [
        (
            lambda length: partial(CosineAnnealingLR, T_max=length),
            lambda t, length: (1 + math.cos(math.pi * t / length)) / 2,
        ),
        (
            lambda length: partial(PolynomialLR, total_iters=length, power=0.9),
            lambda t, length: (1 - t / length) ** 0.9,
        ),
        (
            lambda length: partial(StepLR, step_size=length // 3, gamma=0.5),
            lambda t, length: 0.5 ** (t // (length // 3)),
        ),
    ],
)
def test_the_learning_rate_follows_the_present_length(schedule, factor, length, tmp_path):
    """Six iterations were done of a training of nine, or of six, which was over."""
    before = 6 if length == 15 else 9
    _Training(tmp_path, [0.1] * 5, schedule=schedule(before)).run(2)
    resumed = _Training(tmp_path, [0.1] * 5, resume=True, schedule=schedule(length)).run(length // 3)
    expected = [0.1 * factor(t, length) for t in range(6, length + 1)]
    assert [*resumed.rates, resumed.optimizer.param_groups[0]["lr"]] == pytest.approx(expected, abs=1e-12)


def test_a_training_of_other_settings_is_not_resumed(tmp_path):
    def records(**changes):
        settings = {"fold": 0, "exclude_classes": ["liver"], "iterations": 3, "dtype": "torch.float32", **changes}
        return {"provenance": Provenance(settings.pop("data", "abc"), **settings)}

    _Training(tmp_path, [0.1], **records()).run(1)
    for changes, told in (
        ({"fold": 1}, "fold is 0 and 1"),
        ({"exclude_classes": []}, r"exclude_classes is \['liver'\] and \[\]"),
        ({"data": "def"}, "data is 'abc' and 'def'"),
    ):
        with pytest.raises(
            ValueError, match=rf"checkpoint_epoch=1.pt is of another training than this one: {told}, there"
        ):
            _Training(tmp_path, [0.1], resume=True, **records(**changes))
    _Training(tmp_path, [0.1, 0.2], resume=True, **records(iterations=6, dtype="torch.bfloat16")).run(2)


def _failures(rank, folder):
    """Errors where one process cannot write or read a checkpoint, or sees others than the other."""
    found, write, load = {}, training_checkpoints.save_checkpoint, torch.load
    for name, epochs, file in (("last", 1, "checkpoint_epoch=1.pt"), ("best", 1, "model.pt")):

        def write_others(checkpoint, path, file=file):
            failing(rank == 0 and path.name == file, OSError("No space left on device"))()
            write(checkpoint, path)

        training_checkpoints.save_checkpoint = write_others
        found[name] = error_of(_Training(folder / name, [0.5]).run, epochs)
        training_checkpoints.save_checkpoint = write
    file = folder / "file"
    file.touch()
    found["folder"] = error_of(_Training, file / "below" if rank == 0 else folder / "elsewhere", [0.5])
    resumed = _Training(folder / "both", [0.5, 0.6], resume=True)
    torch.load = failing(rank == 1, ValueError("half a file"), load)
    found["load"] = error_of(resumed.run, 2)
    torch.load = load
    found["different"] = error_of(_Training, folder / ("both" if rank == 0 else "elsewhere"), [0.5], resume=True)
    found["earlier"] = error_of(_Training, folder / "both" if rank == 0 else folder / "elsewhere", [0.5])
    return found


def _in_a_group(rank, folder):
    _Training(folder / "both", [0.5]).run(1)
    return _failures(rank, folder), sorted(file.name for file in (folder / "both").glob("[!.]*"))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return in_two_processes(_in_a_group, tmp_path_factory.mktemp("group"))


@pytest.mark.parametrize(
    ("place", "rank", "reason"),
    [
        ("last", 0, "OSError: No space left on device"),
        ("best", 0, "OSError: No space left on device"),
        ("folder", 0, "NotADirectoryError: .*file"),
        ("load", 1, "ValueError: .*half a file"),
        ("earlier", 0, "ValueError: .*both holds checkpoints of an earlier training"),
    ],
)
def test_what_one_process_cannot_do_ends_both_with_the_reason(both, place, rank, reason):
    errors = [failures[place] for failures, _ in both]
    assert re.match(reason, errors[rank])
    assert errors[1 - rank] == TOLD.format(rank, errors[rank])


def test_processes_go_on_from_the_same_checkpoint(both):
    for failures, names in both:
        assert names == ["checkpoint_epoch=1.pt", "model.pt"]
        assert failures["different"].startswith("ValueError: Processes see different files in ")
        assert "checkpoint_epoch=1.pt, None. Name a folder that all of them share." in failures["different"]


def _bare(folder, network=None, resume=False):
    """A trainer that does nothing but write checkpoints."""
    trainer = Engine(lambda *_: None)
    TrainingCheckpoints(folder, {"model": network or nn.Linear(1, 1)}, resume).attach(trainer)
    return trainer


def _files(folder):
    return sorted(file.name for file in folder.glob("[!.]*"))


def test_a_training_resumed_several_times_leaves_two_checkpoints(tmp_path):
    for epochs in (2, 4, 6):
        _bare(tmp_path, resume=True).run([0], max_epochs=epochs)
        assert _files(tmp_path) == [f"checkpoint_epoch={epochs - 1}.pt", f"checkpoint_epoch={epochs}.pt"]


def test_a_damaged_newest_checkpoint_is_replaced_and_what_killed_runs_left_goes(tmp_path, caplog):
    _bare(tmp_path).run([0], max_epochs=3)
    newest, remains = tmp_path / "checkpoint_epoch=3.pt", tmp_path / ".1f.checkpoint_epoch=4.pt"
    newest.write_bytes(newest.read_bytes()[:500])
    remains.touch()
    trainer = _bare(tmp_path, resume=True)
    assert "checkpoint_epoch=3.pt is not a checkpoint, or not a whole one" in caplog.text
    trainer.run([0], max_epochs=4)
    assert _files(tmp_path) == ["checkpoint_epoch=3.pt", "checkpoint_epoch=4.pt"]
    assert torch.load(newest, weights_only=True)["trainer"]["iteration"] == 3
    assert not remains.exists()


def test_of_two_trainings_set_up_for_one_folder_the_second_does_not_start(tmp_path):
    first, second = _bare(tmp_path), _bare(tmp_path)
    first.run([0], max_epochs=1)
    before = (tmp_path / "checkpoint_epoch=1.pt").read_bytes()
    with pytest.raises(ValueError, match=r"Another training has written to .* since this one was set up"):
        second.run([0], max_epochs=1)
    assert (tmp_path / "checkpoint_epoch=1.pt").read_bytes() == before
    first.run([0], max_epochs=2)
    assert "checkpoint_epoch=2.pt" in _files(tmp_path)


@pytest.mark.parametrize(("place", "scores"), [("checkpoint_epoch=2.pt", [0.9, 0.3]), ("model.pt", [0.3, 0.9])])
def test_what_stood_stays_on_a_full_disk(tmp_path, monkeypatch, place, scores):
    training = _Training(tmp_path, scores)
    training.run(1)
    before = {name: (tmp_path / name).read_bytes() for name in _files(tmp_path)}
    write = training_checkpoints.save_checkpoint

    def write_others(checkpoint, path):
        failing(path.name == place, OSError("No space left on device"), write)(checkpoint, path)

    monkeypatch.setattr(training_checkpoints, "save_checkpoint", write_others)
    with pytest.raises(OSError, match="No space left"):
        training.run(2)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    training = _Training(tmp_path, [0.3, 0.9, 0.95])
    training.run(1)
    best = (tmp_path / "model.pt").read_bytes()
    with torch.no_grad():
        training.network.weight[0, 0] = torch.inf
    with pytest.raises(
        RuntimeError,
        match=r"model\.pt is not written, because 2 of 2 tensors hold values that are not finite, such as weight: the "
        r"training has diverged\. Take a lower learning rate",
    ):
        training.run(2)
    assert (tmp_path / "model.pt").read_bytes() == best
    assert _files(tmp_path) == ["checkpoint_epoch=1.pt", "model.pt"]


def test_a_validation_that_is_no_number_is_not_the_best(tmp_path, caplog):
    training = _Training(tmp_path, [float("nan"), 0.2, float("nan")])
    training.run(1)
    assert "The validation's dice is not a number: it does not count" in caplog.text
    assert not (tmp_path / "model.pt").exists()
    training.run(3)
    assert not torch.equal(_weights(tmp_path / "model.pt"), training.network.weight)


@pytest.mark.parametrize(("scores", "is_last"), [([0.9, 0.1], False), ([float("nan")] * 2, True)])
def test_a_training_leaves_a_model_whether_or_not_a_validation_counted(tmp_path, scores, is_last):
    training = _Training(tmp_path, scores)
    FinalModelSaver(str(tmp_path), {"model": training.network}, unless=training.best).attach(training.trainer)
    training.run(2)
    assert torch.equal(_weights(tmp_path / "model.pt"), training.network.weight) == is_last


def test_a_training_that_ends_with_an_error_leaves_no_model(tmp_path):
    trainer = Engine(lambda *_: 1 / 0)
    FinalModelSaver(str(tmp_path), {"model": nn.Linear(1, 1)}).attach(trainer)
    with pytest.raises(ZeroDivisionError):
        trainer.run([0])
    assert not _files(tmp_path)
