# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re

import pytest
import torch

from monai_fewshot.data import PicturePreparation, VolumePreparation
from monai_fewshot.inferers import FewShotVolumeInferer
from monai_fewshot.networks.nets import ALPNet
from monai_fewshot.transforms import ClassParts
from monai_fewshot.utils import define, load_network
from monai_fewshot.workflows import GivenModel, ModelRecord, TrainedModel


def network(channels=(4, 8), window=8):
    encoder = define(
        "monai_fewshot.networks.encoders.UNetEncoder", spatial_dims=2, in_channels=1, channels=channels, out_channels=8
    )
    return define("monai_fewshot.networks.nets.ALPNet", spatial_dims=2, encoder=encoder, train_window=window)


LPS = [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]]
RAS = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


def save(file, made=None, preparation=None, parts=None):
    made = made or network()
    preparation = preparation or VolumePreparation([32, 24], LPS, classes={4: "liver", 2: "spleen"})
    record = ModelRecord(made, preparation, parts)
    torch.save({"model": made.state_dict(), "settings": record.state_dict()}, file)
    return str(file)


def test_network_and_preparation_are_those_of_the_training(tmp_path):
    trained = network()
    model = TrainedModel(save(tmp_path / "model.pt", trained), "cpu")
    assert isinstance(model.network, ALPNet)
    assert model.network.train_window == 8
    load_network(model.network, model.checkpoints[0])
    assert all(
        torch.equal(one, other) for one, other in zip(model.network.parameters(), trained.parameters(), strict=True)
    )
    assert isinstance(model.preparation, VolumePreparation)
    assert (model.preparation.axes, model.image_size) == (LPS, [32, 24])
    assert list(model.classes.items()) == [(4, "liver"), (2, "spleen")]
    inferer = model.inferer(lambda **given: given, 2)
    assert inferer == {"num_classes": 2, "image_size": [32, 24]}


def test_pictures_are_prepared_as_pictures(tmp_path):
    model = TrainedModel(save(tmp_path / "model.pt", preparation=PicturePreparation([16, 16], channels=1)), "cpu")
    assert isinstance(model.preparation, PicturePreparation)
    assert model.preparation.settings() == PicturePreparation([16, 16], channels=1).settings()
    assert model.classes is None


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    model = TrainedModel(tmp_path / "absent.pt", "cpu").of_folds([0])
    with pytest.raises(FileNotFoundError, match=r"There is no checkpoint .*absent\.pt"):
        _ = model.network


def test_another_size_than_that_of_the_training_is_refused(tmp_path):
    path = save(tmp_path / "model.pt")
    assert TrainedModel(path, "cpu", image_size=(32, 24)).image_size == [32, 24]
    text = f"image_size is [64, 48], but {path} was trained at [32, 24]: leave image_size out, or train at the other"
    for what in ("network", "preparation", "image_size", "classes"):
        with pytest.raises(ValueError, match=re.escape(text)):
            getattr(TrainedModel(path, "cpu", image_size=[64, 48]), what)


def test_folds_share_a_network_and_differ_in_weights_alone(tmp_path):
    for fold in (0, 2):
        torch.manual_seed(fold)
        save(tmp_path / f"fold{fold}.pt")
    model = TrainedModel(str(tmp_path / "fold{fold}.pt"), "cpu").of_folds([0, 2])
    assert model.checkpoints == [str(tmp_path / f"fold{fold}.pt") for fold in (0, 2)]
    assert model.image_size == [32, 24]


def test_axes_of_folds_may_differ_a_little(tmp_path):
    """Those of oblique stacks: near enough that no scan is turned otherwise."""
    oblique = [[-0.8, 0.6, 0.0], [-0.6, -0.8, 0.0], [0.0, 0.0, 1.0]]
    paths = [
        save(tmp_path / f"{n}.pt", network(), VolumePreparation([32, 24], axes))
        for n, axes in enumerate((LPS, oblique))
    ]
    assert TrainedModel(paths, "cpu").preparation.axes == LPS


def test_folds_may_differ_in_what_their_annotated_scans_show(tmp_path):
    parts = [ClassParts({1: 1, 2: 2}, {1: [3.0, 0.5, number], 2: [-3.0, -0.5, 0.0]}) for number in (1.0, 2.0)]
    made = network()
    for number, each in enumerate(parts):
        save(tmp_path / f"fold{number}.pt", made, parts=each)
    model = TrainedModel(tmp_path / "fold{fold}.pt", "cpu").of_folds([0, 1])
    assert model.parts == parts[0]
    assert TrainedModel(save(tmp_path / "none.pt", made), "cpu").parts is None


def test_folds_of_other_settings_are_refused_with_what_differs(tmp_path):
    paths = [
        save(tmp_path / "0.pt"),
        save(tmp_path / "1.pt", network((4, 12), 6), VolumePreparation([32, 24], RAS, classes={4: "liver"})),
    ]
    with pytest.raises(ValueError, match=r"0\.pt and .*1\.pt are of trainings with other settings: ") as failure:
        _ = TrainedModel(paths, "cpu").network
    text = str(failure.value)
    for difference in (
        "network.encoder.channels is [4, 8] and [4, 12]",
        "network.train_window is 8 and 6",
        f"preparation.axes is {LPS} and {RAS}",
        "preparation.classes.2 is 'spleen' and None",
    ):
        assert difference in text
    assert "image_size" not in text
    assert "out_channels" not in text


@pytest.mark.parametrize(
    "content", [{}, {"settings": None}, {"settings": {"network": {}}}, {"settings": {"preparation": {}}}]
)
def test_a_checkpoint_without_settings_is_refused(content, tmp_path):
    torch.save({"model": network().state_dict(), **content}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt does not tell its network and preparation: it is not of a train"):
        _ = TrainedModel(tmp_path / "model.pt", "cpu").network


def test_a_network_may_be_changed(tmp_path):
    path = save(tmp_path / "model.pt")
    assert TrainedModel(path, "cpu", changes={"train_window": 3}).of_folds([0]).network.train_window == 3


def test_a_network_that_was_made_otherwise_cannot_be_recorded():
    with pytest.raises(ValueError, match="How a ALPNet was made is not known"):
        ModelRecord(ALPNet(2, torch.nn.Conv2d(1, 4, 3)), VolumePreparation())


def test_a_given_model_needs_no_checkpoint():
    model = GivenModel(torch.nn.Identity(), VolumePreparation(), "cpu")
    assert model.of_folds([0, 1]) is model
    assert list(model.checkpoints) == []
    assert isinstance(
        model.inferer(lambda **given: FewShotVolumeInferer("whole_volume", **given), 2), FewShotVolumeInferer
    )
