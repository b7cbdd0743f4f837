# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import shutil

import pytest
import torch
from torch import nn

from monai_fewshot.utils import checkpoint_to_resume, latest_checkpoint, load_network, save_checkpoint


def _network(width=4):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width))


def _save(folder, *epochs):
    folder.mkdir(exist_ok=True)
    for epoch in epochs:
        torch.save({"model": _network().state_dict(), "epoch": epoch}, folder / f"checkpoint_epoch={epoch}.pt")


def _truncate(file, keep):
    file.write_bytes(file.read_bytes()[:keep])


def _same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_newest_by_number_not_by_name(tmp_path):
    _save(tmp_path, 2, 10, 9)
    assert latest_checkpoint(tmp_path) == str(tmp_path / "checkpoint_epoch=10.pt")


def test_no_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "not there") is None
    torch.save({}, tmp_path / "model.pt")
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("keep", [0, 10, 700, -1])
def test_a_truncated_newest_checkpoint_is_passed_over(tmp_path, keep, caplog):
    _save(tmp_path, 1, 2, 3)
    _truncate(tmp_path / "checkpoint_epoch=3.pt", keep)
    with caplog.at_level(logging.WARNING):
        assert latest_checkpoint(tmp_path) == str(tmp_path / "checkpoint_epoch=2.pt")
    assert "checkpoint_epoch=3.pt is not a checkpoint, or not a whole one" in caplog.text
    assert "Was the run stopped while it wrote?" in caplog.text


def test_no_checkpoint_can_be_read(tmp_path):
    _save(tmp_path, 1, 2)
    for file in tmp_path.iterdir():
        _truncate(file, 100)
    with pytest.raises(
        ValueError, match=r"No checkpoint in .* can be read; the newest is checkpoint_epoch=2\.pt. Remove"
    ):
        latest_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="can be read"):
        checkpoint_to_resume(tmp_path, resume=True)


def test_resume_or_start(tmp_path):
    assert checkpoint_to_resume(tmp_path / "new", resume=False) is None
    assert checkpoint_to_resume(tmp_path / "new", resume=True) is None
    _save(tmp_path, 4)
    assert checkpoint_to_resume(tmp_path, resume=True) == str(tmp_path / "checkpoint_epoch=4.pt")


@pytest.mark.parametrize("name", ["checkpoint_epoch=4.pt", "model.pt"])
def test_an_earlier_training_is_not_overwritten(tmp_path, name):
    _save(tmp_path, 4)
    (tmp_path / "checkpoint_epoch=4.pt").rename(tmp_path / name)
    with pytest.raises(ValueError, match=r"holds checkpoints of an earlier training\. Pass --resume true to go on"):
        checkpoint_to_resume(tmp_path, resume=False)


@pytest.mark.parametrize(
    "wrap", [lambda weights: weights, lambda weights: {"model": weights, "provenance": {"seed": 0}}]
)
def test_weights_are_loaded(tmp_path, wrap):
    trained, network = _network(), _network()
    trained[1].running_mean += 3
    torch.save(wrap(trained.state_dict()), tmp_path / "model.pt")
    assert not _same(trained, network)
    content = wrap(trained.state_dict())
    assert load_network(network, tmp_path / "model.pt") == content.get("provenance", {})
    assert _same(trained, network)


def test_missing_checkpoint(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"There is no checkpoint .*model\.pt: train first, or name an existing one"
    ):
        load_network(_network(), tmp_path / "model.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_damaged_checkpoint(tmp_path, content):
    file = tmp_path / "model.pt"
    torch.save(_network().state_dict(), file)
    file.write_bytes(file.read_bytes()[:-200] if content is None else content)
    with pytest.raises(ValueError, match=r"model\.pt is not a checkpoint, or not a whole one \("):
        load_network(_network(), file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lambda: _network(8).state_dict(),
            r"6 tensors differ in name or shape from this one's 7, such as 0\.bias, 0\.weight, 1\.bias",
        ),
        (lambda: {"model": nn.Conv2d(1, 4, 3).state_dict()}, "9 tensors differ"),
        (lambda: {"optimizer": {}}, "7 tensors differ"),
        (lambda: {"model": {}}, "7 tensors differ"),
    ],
)
def test_checkpoint_of_another_network(tmp_path, content, message):
    torch.save(content(), tmp_path / "model.pt")
    network = _network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match=rf"model\.pt is of another network: {message}.*Give the encoder and sizes"):
        load_network(network, tmp_path / "model.pt")
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("content", "kind"), [([1, 2], "list"), (torch.zeros(3), "Tensor")])
def test_a_file_of_something_else(tmp_path, content, kind):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=rf"model\.pt is not a checkpoint of a training: it holds a {kind}\."):
        load_network(_network(), tmp_path / "model.pt")


def test_a_checkpoint_of_code_is_refused(tmp_path):
    torch.save(_network(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="is not a checkpoint, or not a whole one"):
        load_network(_network(), tmp_path / "model.pt")


def test_paths_may_hold_spaces(tmp_path):
    folder = tmp_path / "my run"
    _save(folder, 1)
    shutil.copy(latest_checkpoint(folder), tmp_path / "a b.pt")
    load_network(_network(), tmp_path / "a b.pt")


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7])
def test_a_bit_flip_in_the_weights_is_refused(tmp_path, place):
    file, network = tmp_path / "model.pt", nn.Linear(40, 40)
    torch.save({"model": network.state_dict()}, file)
    raw, weights = bytearray(file.read_bytes()), network.weight.detach().numpy().tobytes()
    raw[raw.index(weights) + int(place * len(weights))] ^= 0x40
    file.write_bytes(raw)
    with pytest.raises(ValueError, match=r"model\.pt is not a checkpoint, .*the checksum of its part model/data/\d"):
        load_network(network, file)


@pytest.mark.parametrize(("old", "new"), [(b"little", b"littlE"), (b"0.weight", b"0.wei\xb9ht")])
def test_whatever_damage_makes_the_reader_raise_the_older_checkpoint_serves(tmp_path, caplog, old, new):
    _save(tmp_path, 1, 2)
    newest = tmp_path / "checkpoint_epoch=2.pt"
    newest.write_bytes(newest.read_bytes().replace(old, new))
    with pytest.raises(ValueError, match=r"checkpoint_epoch=2\.pt is not a checkpoint, or not a whole one"):
        load_network(_network(), newest)
    assert latest_checkpoint(tmp_path) == str(tmp_path / "checkpoint_epoch=1.pt")
    assert "checkpoint_epoch=2.pt is not a checkpoint" in caplog.text


def test_a_training_whose_first_checkpoint_is_damaged_begins_anew(tmp_path, caplog):
    _save(tmp_path, 1)
    _truncate(tmp_path / "checkpoint_epoch=1.pt", 700)
    assert checkpoint_to_resume(tmp_path, resume=True) is None
    assert "checkpoint_epoch=1.pt is not a checkpoint" in caplog.text


def test_weights_that_are_not_finite_are_neither_saved_nor_used_nor_resumed(tmp_path):
    network = _network()
    _save(tmp_path, 1)
    network[0].bias.data[1] = torch.nan
    torch.save({"model": network.state_dict()}, tmp_path / "checkpoint_epoch=2.pt")
    before = _network()
    with pytest.raises(
        ValueError,
        match=r"epoch=2\.pt cannot be used, because 1 of 6 tensors hold values that are not finite, such as 0\.bias",
    ):
        load_network(before, tmp_path / "checkpoint_epoch=2.pt")
    assert latest_checkpoint(tmp_path) == str(tmp_path / "checkpoint_epoch=1.pt")
    with pytest.raises(RuntimeError, match=r"model\.pt is not written, because 1 of 6 tensors"):
        save_checkpoint({"model": network.state_dict()}, tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()
    save_checkpoint({"model": before.state_dict()}, tmp_path / "model.pt")
    load_network(network, tmp_path / "model.pt")
    assert _same(network, before)
