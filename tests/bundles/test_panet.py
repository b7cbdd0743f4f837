# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The PANet bundle: superpixels or annotated classes to train on, then others after one annotated scan."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from image_bundles import BUNDLES, classes_of_mask, load, refusal, run, workflow

from monai_fewshot.networks.encoders import DilatedResNetEncoder, VGG16Encoder
from monai_fewshot.networks.nets import PANet

pytestmark = pytest.mark.default_dtype
TRAINING = {"num_val_episodes": 2, "batch_size": 2, "epoch_length": 2, "max_epochs": 1}
FOLD = {"num_folds": 3, "fold": 0}
ANNOTATED = {**TRAINING, **FOLD, "num_val_scans": 2}
SUPERPIXELS = {**TRAINING, **FOLD, "pseudo_labels#min_size": 40}
CONFIGS = BUNDLES / "panet" / "configs"


@pytest.fixture(scope="module")
def trained(nine_scans, tmp_path_factory):
    """Folder of a 2-way 2-shot training of fold 0."""
    folder = tmp_path_factory.mktemp("models")
    run("panet", "train", "annotated", dataset_dir=nine_scans, ckpt_dir=str(folder), ways=2, shots=2, **ANNOTATED)
    return folder


def test_training_on_superpixels(nine_scans, tmp_path):
    made = workflow("panet", "train", dataset_dir=nine_scans, bundle_root=str(tmp_path), shots=2, **SUPERPIXELS)
    assert made.check_properties() == []
    made.run()
    episode = made.parser.get_parsed_content("train#dataset")[0]
    assert episode["support_image"].shape == (2, 1, 32, 32)
    assert isinstance(made.parser.get_parsed_content("network_def"), PANet)
    assert load(tmp_path / "models" / "fold0" / "model.pt")["provenance"]["settings"]["iterations"] == 2


def test_training_on_annotated_classes(trained, nine_scans, tmp_path):
    assert load(trained / "model.pt")["provenance"]["settings"]["trained_classes"] == ["liver", "spleen"]
    options = {"dataset_dir": nine_scans, "ckpt_dir": str(tmp_path), **ANNOTATED}
    made = workflow("panet", "train", "annotated", ways=2, shots=2, **options)
    episode = made.parser.get_parsed_content("train#dataset")[0]
    assert episode["support_image"].shape == (4, 1, 32, 32)
    assert set(episode["support_label"].unique().tolist()) == {0, 1, 2}
    assert made.parser.get_parsed_content("network_def").num_classes == 2
    one_way = workflow("panet", "train", "annotated", exclude_classes=["spleen"], **options)
    assert one_way.parser.get_parsed_content("trained_classes") == [1]
    text = refusal("panet", "train", "annotated", ways=3, **options)
    assert text == "3-way episodes need as many classes, got [1, 2]."


def test_a_network_of_two_ways_is_evaluated_class_by_class(trained, nine_scans, tmp_path):
    options = {"dataset_dir": nine_scans, "checkpoint": str(trained / "model.pt"), "output_dir": str(tmp_path), **FOLD}
    run("panet", "evaluate", **options)
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["protocol"] for row in rows} == {"alpnet", "whole_volume"}
    assert len({row["scan"] for row in rows}) == 3
    assert max(float(row["dice"]) for row in rows) > 0.3
    settings = json.loads((tmp_path / "results.json").read_text())["provenance"]["settings"]
    assert settings["classes"] == ["liver", "spleen"]


def test_masks_have_the_support_s_class_numbers_and_the_scan_s_grid(trained, nine_scans, tmp_path):
    assert classes_of_mask("panet", nine_scans, trained / "model.pt", tmp_path) == {0, 1, 2}


@pytest.mark.parametrize(
    ("override", "encoder", "channels"), [("paper", VGG16Encoder, 512), ("resnet", DilatedResNetEncoder, 256)]
)
def test_encoders_of_the_papers(override, encoder, channels):
    depth = {"encoder#depth": 18} if override == "resnet" else {}
    network = workflow("panet", "train", override, initialize=[], **depth).parser.get_parsed_content("network_def")
    assert isinstance(network.encoder, encoder)
    assert (network.encoder.out_channels, network.encoder.stride) == (channels, 8)


def test_the_published_settings(nine_scans, tmp_path):
    made = workflow("panet", "train", "paper", dataset_dir=nine_scans, ckpt_dir=str(tmp_path), **FOLD)
    values = {
        key: made.parser.get_parsed_content(key) for key in ("max_epochs", "epoch_length", "loss", "lr_scheduler")
    }
    assert values["max_epochs"] * values["epoch_length"] == 30_000
    assert (values["lr_scheduler"].step_size, values["lr_scheduler"].gamma) == (10_000, 0.1)
    assert (values["loss"].background_weight, values["loss"].alignment_weight) == (1, 1)
    optimizer = made.parser.get_parsed_content("optimizer")
    assert isinstance(optimizer, torch.optim.SGD)
    assert [optimizer.defaults[key] for key in ("lr", "momentum", "weight_decay")] == [1e-3, 0.9, 5e-4]


def test_all_but_the_network_is_that_of_ssl_alpnet():
    other = BUNDLES / "ssl_alpnet" / "configs"
    names = {file.name for file in CONFIGS.iterdir()}
    assert names == {file.name for file in other.iterdir()} | {"resnet.json"}
    own, theirs = (json.loads((folder / "train.json").read_text()) for folder in (CONFIGS, other))
    assert own.pop("shots") == 1
    assert own["episodes"].pop("shots") == "@shots"
    assert theirs.pop("train_window") == 8
    assert own | {"network_def": None} == theirs | {"network_def": None}
