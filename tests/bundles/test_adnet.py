# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The ADNet bundle: supervoxels of unlabeled scans, then what one annotated scan shows."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from image_bundles import classes_of_mask, load, run, workflow

from monai_fewshot.losses import EpisodeLoss
from monai_fewshot.networks.blocks import TrainingOutput, TrainingTarget
from monai_fewshot.networks.encoders import DilatedResNetEncoder

pytestmark = pytest.mark.default_dtype
TRAINING = {
    "batch_size": 2,
    "epoch_length": 2,
    "max_epochs": 2,
    "num_val_episodes": 2,
    "pseudo_labels#min_size": 200,
    "min_pixels": 10,
}
FOLD = {"num_folds": 3, "fold": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("adnet")


@pytest.fixture(scope="module")
def training(dataset_dir, folder):
    """A training of fold 0, done."""
    options = {"dataset_dir": str(dataset_dir), "ckpt_dir": str(folder), "cache_dir": str(folder / "cache")}
    return run("adnet", "train", **options, **TRAINING, **FOLD)


def test_the_threshold_is_learned_and_kept(training, folder):
    assert training.check_properties() == []
    threshold = load(folder / "checkpoint_epoch=2.pt")["model"]["threshold"]
    assert threshold != -10
    assert abs(threshold + 10) < 0.1
    assert load(folder / "model.pt")["provenance"]["settings"]["iterations"] == 4


def test_support_and_query_are_neighbors_in_one_supervoxel(training):
    dataset = training.parser.get_parsed_content("train#dataset")
    apart = [abs(np.diff(dataset.plan(index).slices)[0]) for index in range(30)]
    assert set(apart) <= {0, 1}
    assert 1 in apart
    for index in range(30):
        plan = dataset.plan(index)
        assert all((dataset.stack.label[s] == plan.labeling[0]).sum() >= 10 for s in plan.slices)


def test_the_loss_adds_the_threshold_to_that_of_the_episode(training):
    loss = training.parser.get_parsed_content("loss")
    generator = torch.Generator().manual_seed(0)
    logits, turned = torch.randn(2, 2, 8, 8, generator=generator), torch.randn(2, 1, 2, 8, 8, generator=generator)
    target = TrainingTarget(torch.ones(2, 1, 8, 8), torch.ones(2, 1, 1, 8, 8))
    output = TrainingOutput(logits, turned)
    expected = EpisodeLoss(0.1)(output, target) - 0.5
    torch.testing.assert_close(loss(output._replace(auxiliary_loss=torch.tensor(-0.5)), target), expected)


def test_every_scan_and_class_is_scored(training, dataset_dir, folder, tmp_path):
    options = {"dataset_dir": str(dataset_dir), "checkpoint": str(folder / "model.pt"), "output_dir": str(tmp_path)}
    run("adnet", "evaluate", protocol="adnet_ep1", **options, **FOLD)
    with open(tmp_path / "results.csv", newline="") as file:
        rows = {(row["scan"], row["class_name"], row["protocol"]) for row in csv.DictReader(file)}
    assert rows == {
        (scan, organ, protocol)
        for scan in ("scan_0", "scan_1")
        for organ in ("liver", "spleen")
        for protocol in ("adnet_ep1", "whole_volume")
    }


def test_a_scan_is_segmented_after_another(training, dataset_dir, folder, tmp_path):
    assert classes_of_mask("adnet", dataset_dir, folder / "model.pt", tmp_path) <= {0, 1, 2}


def test_the_papers_settings(dataset_dir, tmp_path):
    options = {"dataset_dir": str(dataset_dir), "ckpt_dir": str(tmp_path), "encoder#depth": 18, **FOLD}
    made = workflow("adnet", "train", "paper", cache_dir=str(tmp_path), **{"pseudo_labels#min_size": 200}, **options)
    assert isinstance(made.parser.get_parsed_content("network_def").encoder, DilatedResNetEncoder)
    optimizer = made.parser.get_parsed_content("optimizer")
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (1e-3, 0.9)
    assert made.parser.get_parsed_content("max_epochs") * made.parser.get_parsed_content("epoch_length") == 50_000
    assert made.parser.get_parsed_content("min_pixels") == 200
