# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The SE-Net bundle: episodes of annotated classes, then others after one annotated scan."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from image_bundles import classes_of_mask, load, refusal, run, workflow
from monai.transforms import LoadImage
from scipy import ndimage

from monai_fewshot.data import load_folds
from monai_fewshot.inferers import FewShotVolumeInferer
from monai_fewshot.networks.nets import FewShotSENet

pytestmark = pytest.mark.default_dtype
TRAINING = {"num_val_scans": 2, "num_val_episodes": 2, "batch_size": 2, "epoch_length": 2, "max_epochs": 2}
FOLD = {"num_folds": 3, "fold": 0}


@pytest.fixture(scope="module")
def trained(nine_scans, tmp_path_factory):
    """Folder of a training of fold 0 on livers alone."""
    folder = tmp_path_factory.mktemp("models")
    run("se_net", "train", dataset_dir=nine_scans, ckpt_dir=str(folder), classes=["liver"], **TRAINING, **FOLD)
    return folder


class TestTrain:
    def test_leaves_a_model_that_says_what_made_it(self, trained):
        model = load(trained / "model.pt")
        assert model["provenance"]["settings"]["trained_classes"] == ["liver"]
        assert model["provenance"]["settings"]["iterations"] == 4
        assert (trained / "checkpoint_epoch=2.pt").is_file()

    def test_the_same_seed_gives_the_same_weights(self, trained, nine_scans, tmp_path):
        run("se_net", "train", dataset_dir=nine_scans, ckpt_dir=str(tmp_path), classes=["liver"], **TRAINING, **FOLD)
        one, other = (load(folder / "checkpoint_epoch=2.pt")["model"] for folder in (trained, tmp_path))
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_tested_classes_are_neither_trained_on_nor_seen(self, nine_scans, tmp_path):
        options = {"dataset_dir": nine_scans, "ckpt_dir": str(tmp_path), **TRAINING, **FOLD}
        made = workflow("se_net", "train", exclude_classes=["spleen"], **options)
        assert made.parser.get_parsed_content("trained_classes") == [1]
        assert not made.parser.get_parsed_content("stacks")[0].label.any(), "livers show beside spleens alone"
        text = refusal("se_net", "train", exclude_classes=["spleen"], **options)
        assert text.startswith("Classes that show in fewer than two training scans: 1 in 0.")
        both = workflow("se_net", "train", **options)
        assert both.check_properties() == []
        assert both.parser.get_parsed_content("trained_classes") == [1, 2]
        episode = both.parser.get_parsed_content("train#dataset")[0]
        assert set(episode["support_label"].unique().tolist()) == {0, 1}

    def test_without_class_names_there_is_nothing_to_train_on(self, scans, tmp_path):
        scans.save(tmp_path / "data" / "a.nii.gz", scans.make(0)[0])
        text = refusal("se_net", "train", dataset_dir=str(tmp_path / "data"), ckpt_dir=str(tmp_path / "m"))
        assert "dataset.json" in text

    def test_the_published_settings(self, nine_scans, tmp_path):
        options = {"dataset_dir": nine_scans, "ckpt_dir": str(tmp_path), **FOLD, "num_val_scans": 2}
        made = workflow("se_net", "train", "paper", image_size=[32, 32], **options)
        optimizer = made.parser.get_parsed_content("optimizer")
        assert isinstance(optimizer, torch.optim.SGD)
        assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (1e-3, 0.99)
        assert made.parser.get_parsed_content("lr_scheduler").step_size == 1000
        assert made.parser.get_parsed_content("train#dataset").augmentation is None
        assert len(made.parser.get_parsed_content("network_def").segmenter.down[0].conv.weight) == 64
        made = workflow("se_net", "evaluate", "paper", dataset_dir=nine_scans, initialize=[])
        assert made.parser.get_parsed_content("make_inferer#protocol") == ["senet", "whole_volume"]


def test_dice_is_that_of_a_plain_computation(trained, nine_scans, tmp_path):
    options = {"dataset_dir": nine_scans, "checkpoint": str(trained / "model.pt"), "output_dir": str(tmp_path), **FOLD}
    run("se_net", "evaluate", classes=["spleen"], dtype="$torch.float32", **options)
    with open(tmp_path / "results.csv", newline="") as file:
        rows = {(row["scan"], row["protocol"]): float(row["dice"]) for row in csv.DictReader(file)}
    assert json.loads((tmp_path / "results.json").read_text())["provenance"]["settings"]["classes"] == ["spleen"]
    scans = sorted({scan for scan, _ in rows})
    network = FewShotSENet(2, conditioner_channels=3, channels=4).eval()
    network.load_state_dict(load(trained / "model.pt")["model"])
    fold = load_folds(nine_scans, 3)[0]
    assert scans == sorted(fold.query)

    def read(name):
        image, label = (
            LoadImage()(f"{nine_scans}/{part}/{name}.nii.gz").as_tensor() for part in ("imagesTr", "labelsTr")
        )
        return ((image - image.mean()) / image.std(correction=0))[None, None], (label == 2).float()[None, None]

    support = [part[None] for part in read(fold.support[0])]
    for name in scans:
        image, label = read(name)
        margins = FewShotVolumeInferer("whole_volume", 1, [32, 32])(image, network, *support, label)
        components, count = ndimage.label(margins[0, 1].numpy() > 0)
        mask = components == np.bincount(components.ravel())[1:].argmax() + 1 if count else components > 0
        truth = label[0, 0].numpy() > 0
        expected = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        assert rows[name, "whole_volume"] == pytest.approx(expected, abs=1e-3)


def test_masks_have_the_support_s_class_numbers_and_the_scan_s_grid(trained, nine_scans, tmp_path):
    checkpoint = trained / "model.pt"
    assert classes_of_mask("se_net", nine_scans, checkpoint, tmp_path, measurements=True) <= {0, 1, 2}
    assert (tmp_path / "measurements.csv").is_file()
