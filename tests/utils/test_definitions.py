# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import pytest
import torch
from monai.transforms import Compose

from monai_fewshot.networks.nets import ALPNet
from monai_fewshot.utils import build, define, definition_of

ENCODER = {
    "_target_": "monai_fewshot.networks.encoders.UNetEncoder",
    "spatial_dims": 2,
    "in_channels": 1,
    "channels": [4, 8],
    "out_channels": 8,
}
NETWORK = {
    "_target_": "monai_fewshot.networks.nets.ALPNet",
    "spatial_dims": 2,
    "encoder": ENCODER,
    "train_window": 4,
}


def defined(definition):
    """Make an object and those that it is made of."""
    arguments = {key: defined(value) if isinstance(value, dict) else value for key, value in definition.items()}
    return define(arguments.pop("_target_"), **arguments)


def test_the_definition_is_what_was_asked_for_and_json_holds_it():
    network = defined(NETWORK)
    assert isinstance(network, ALPNet)
    assert definition_of(network) == json.loads(json.dumps(definition_of(network))) == NETWORK
    assert definition_of(network.encoder) == ENCODER


def test_tuples_and_short_names_are_told_plainly():
    network = define("BasicUNet", spatial_dims=2, features=(4, 4, 8, 8, 8, 4))
    assert definition_of(network) == {
        "_target_": "monai.networks.nets.basic_unet.BasicUNet",
        "spatial_dims": 2,
        "features": [4, 4, 8, 8, 8, 4],
    }


def test_the_definition_is_no_part_of_the_weights():
    assert defined(NETWORK).state_dict().keys() == ALPNet(2, defined(ENCODER)).state_dict().keys()


def test_what_is_built_has_the_same_weights_names_and_definition():
    network, again = defined(NETWORK), build(NETWORK)
    assert definition_of(again) == NETWORK
    assert again.train_window == 4
    again.load_state_dict(network.state_dict())
    image, support = torch.rand(1, 1, 16, 16), torch.rand(1, 1, 1, 16, 16)
    assert torch.equal(
        network.eval()(image, support, (support > 0.5).float()), again.eval()(image, support, (support > 0.5).float())
    )


def test_arguments_and_those_of_what_it_is_made_of_can_be_changed():
    changed = build(NETWORK, train_window=6, encoder={"channels": [4, 8, 12], "out_channels": None})
    assert changed.train_window == 6
    assert changed.encoder.out_channels == 8, "None changes nothing"
    assert definition_of(changed) == {**NETWORK, "train_window": 6, "encoder": {**ENCODER, "channels": [4, 8, 12]}}
    assert NETWORK["encoder"] is ENCODER
    assert ENCODER["channels"] == [4, 8]


def test_weights_to_begin_with_are_left_out(tmp_path):
    absent = {"_target_": "monai_fewshot.networks.encoders.DilatedResNetEncoder", "depth": 18}
    definition = {**NETWORK, "encoder": {**absent, "weights": str(tmp_path / "gone.pth")}}
    assert definition_of(build(definition))["encoder"] == absent
    with pytest.raises(FileNotFoundError):
        defined(definition["encoder"])


@pytest.mark.parametrize("name", ["monai_fewshot.networks.nets.NoNet", "nowhere.at.all.Net", "NoNet"])
def test_a_class_that_does_not_exist(name):
    with pytest.raises(ValueError, match=f"There is no class {name}: correct its name, or install what it is part of"):
        define(name)
    with pytest.raises(ValueError, match=f"There is no class {name}"):
        build({"_target_": name})


@pytest.mark.parametrize("argument", [torch.nn.ReLU(), [torch.zeros(1)], {"deep": {1, 2}}])
def test_an_argument_that_a_checkpoint_cannot_hold(argument):
    with pytest.raises(ValueError, match=r"Compose: transforms is a \w+, which a checkpoint cannot hold. Give plain"):
        define("monai.transforms.Compose", transforms=argument)


def test_what_was_made_otherwise_has_no_definition():
    made = '{"_target_": "monai_fewshot.utils.define", "name": "torch.nn.modules.activation.ReLU", ...}'
    with pytest.raises(ValueError, match="How a ReLU was made is not known") as failure:
        definition_of(torch.nn.ReLU())
    assert made in str(failure.value)


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "subprocess.Popen", "monai.transforms.Compose"])
def test_a_checkpoint_makes_nothing_but_networks_and_what_is_of_this_package(name, monkeypatch):
    with pytest.raises(ValueError, match=f"{name} is no network: a checkpoint that asks for it is not one of a train"):
        build({"_target_": name, "command": "touch made"})
    assert isinstance(define("monai.transforms.Compose"), Compose)
