# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The bundle of supervised U-Nets: one annotated scan alone, or all annotated training scans, to label maps."""

from __future__ import annotations

import csv

import nibabel
import numpy as np
import pytest
import torch
from image_bundles import load, refusal, run, workflow
from monai.networks.nets import AttentionUnet, BasicUNet
from scipy import ndimage

from monai_fewshot.networks.blocks import with_image_norm

pytestmark = pytest.mark.default_dtype
TRAINING = {"batch_size": 2, "epoch_length": 2, "max_epochs": 2}
FOLD = {"num_folds": 3, "fold": 0}
QUERIES, SUPPORT, OTHERS = ("scan_0", "scan_1"), "scan_2", ("scan_3", "scan_4", "scan_5")
SMALL_ATTENTION = {"base#channels": [4, 8], "base#strides": [2]}


@pytest.fixture(scope="module")
def trained(dataset_dir, tmp_path_factory):
    """Folder of a training on the support of fold 0 alone."""
    folder = tmp_path_factory.mktemp("models")
    run("supervised", "train", dataset_dir=str(dataset_dir), ckpt_dir=str(folder), **TRAINING, **FOLD)
    return folder


def only_with(scans, names, folder):
    """A data set whose other scans cannot be read."""
    data = scans.data_set(folder)
    for part in ("imagesTr", "labelsTr"):
        for file in (data / part).iterdir():
            if file.name.removesuffix(".nii.gz") not in names:
                file.write_bytes(b"nothing")
    return str(data)


def volume(dataset_dir, part, name):
    return np.asarray(nibabel.load(dataset_dir / part / f"{name}.nii.gz").dataobj, dtype=np.float32)


def rows(folder):
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


class TestTrain:
    def test_leaves_a_model_that_says_what_made_it(self, trained):
        model = load(trained / "model.pt")
        settings = model["provenance"]["settings"]
        assert model["settings"]["preparation"]["classes"] == {1: "liver", 2: "spleen"}
        assert (settings["annotated_scans"], settings["iterations"]) == (1, 4)
        assert_equal(model["model"], load(trained / "checkpoint_epoch=2.pt")["model"])

    def test_the_support_is_all_that_is_read(self, scans, trained, tmp_path):
        data = only_with(scans, [SUPPORT], tmp_path / "data")
        run("supervised", "train", dataset_dir=data, ckpt_dir=str(tmp_path / "model"), **TRAINING, **FOLD)
        assert_equal(load(tmp_path / "model" / "model.pt")["model"], load(trained / "model.pt")["model"])

    def test_all_training_scans_are_read_and_neither_queries_nor_support(self, scans, tmp_path):
        options = {"dataset_dir": only_with(scans, OTHERS, tmp_path / "data"), "ckpt_dir": str(tmp_path / "model")}
        made = run("supervised", "train", "all_scans", **options, **TRAINING, **FOLD)
        assert tuple(scan["name"] for scan in made.parser.get_parsed_content("annotated")) == OTHERS
        assert load(tmp_path / "model" / "model.pt")["provenance"]["settings"]["annotated_scans"] == 3

    def test_all_slices_of_the_support_can_be_drawn_and_half_of_them_show_a_class(self, dataset_dir, tmp_path):
        options = {"dataset_dir": str(dataset_dir), "ckpt_dir": str(tmp_path), **FOLD}
        made = workflow("supervised", "train", **options, image_size=None)
        assert made.check_properties() == []
        stack, label = made.parser.get_parsed_content("stack"), volume(dataset_dir, "labelsTr", SUPPORT)
        assert torch.equal(stack.label[:, 0], torch.from_numpy(label).permute(2, 0, 1).to(torch.uint8))
        batch = next(iter(made.parser.get_parsed_content("train#trainer").data_loader))
        assert (batch["label"].flatten(1).amax(1) > 0).tolist() == [True, False] * 2
        assert batch["image"].shape == (4, 1, 40, 36)

    def test_without_a_fold_all_scans_are_learned_from_or_one_that_is_named(self, dataset_dir, tmp_path):
        options = {"dataset_dir": str(dataset_dir), "ckpt_dir": str(tmp_path)}
        made = workflow("supervised", "train", "all_scans", **options)
        assert len(made.parser.get_parsed_content("annotated")) == 6
        paths = {key: f"{dataset_dir}/{part}/scan_1.nii.gz"
                 for key, part in (("support_image", "imagesTr"), ("support_label", "labelsTr"))}  # fmt: skip
        made = workflow("supervised", "train", **options, **paths)
        assert [scan["name"] for scan in made.parser.get_parsed_content("annotated")] == ["scan_1"]

    def test_an_interrupted_training_ends_like_an_uninterrupted_one(self, dataset_dir, trained, tmp_path):
        options = {"dataset_dir": str(dataset_dir), "ckpt_dir": str(tmp_path), **TRAINING, **FOLD}

        def stop(engine):
            if engine.state.iteration == 3:
                raise KeyboardInterrupt

        interrupted = workflow("supervised", "train", **options)
        interrupted.parser.get_parsed_content("train#trainer").add_event_handler("ITERATION_COMPLETED", stop)
        with pytest.raises(KeyboardInterrupt):
            interrupted.run()
        assert not (tmp_path / "model.pt").exists()
        run("supervised", "train", resume=True, **options)
        assert_equal(load(tmp_path / "model.pt")["model"], load(trained / "model.pt")["model"])
        assert "holds checkpoints of an earlier training" in refusal("supervised", "train", **options)


class TestEvaluate:
    def test_dice_is_that_of_a_plain_computation(self, trained, dataset_dir, tmp_path):
        options = {"dataset_dir": str(dataset_dir), "checkpoint": str(trained / "model.pt"), **FOLD}
        run("supervised", "evaluate", output_dir=str(tmp_path), dtype="$torch.float32", **options)
        found = {(row["scan"], row["class_name"], row["protocol"]): float(row["dice"]) for row in rows(tmp_path)}
        protocols, organs = ("alpnet", "whole_volume"), ("liver", "spleen")
        assert set(found) == {(scan, organ, p) for scan in QUERIES for organ in organs for p in protocols}
        network = BasicUNet(2, 1, 3, features=(4, 4, 8, 8, 8, 4)).eval()
        network.load_state_dict(load(trained / "model.pt")["model"])
        for scan in QUERIES:
            image, truth = volume(dataset_dir, "imagesTr", scan), volume(dataset_dir, "labelsTr", scan)
            image = torch.from_numpy((image - image.mean()) / image.std()).float().permute(2, 0, 1)[:, None]
            with torch.no_grad():
                small = torch.nn.functional.interpolate(image, (32, 32), mode="bilinear", antialias=True)
                logits = torch.nn.functional.interpolate(network(small), image.shape[2:], mode="bilinear")
            decided = logits.argmax(1).permute(1, 2, 0).numpy()
            for number, organ in enumerate(organs, 1):
                components, count = ndimage.label(decided == number)
                mask = components == np.bincount(components.ravel())[1:].argmax() + 1 if count else components > 0
                expected = 2 * (mask & (truth == number)).sum() / (mask.sum() + (truth == number).sum())
                assert found[scan, organ, "whole_volume"] == pytest.approx(expected, abs=1e-3)

    def test_classes_are_those_that_the_network_knows(self, dataset_dir, tmp_path):
        options = {"dataset_dir": str(dataset_dir), **FOLD}
        run("supervised", "train", classes=["spleen"], ckpt_dir=str(tmp_path), **TRAINING, **options)
        assert load(tmp_path / "model.pt")["settings"]["preparation"]["classes"] == {2: "spleen"}
        results = tmp_path / "eval"
        run("supervised", "evaluate", checkpoint=str(tmp_path / "model.pt"), output_dir=str(results), **options)
        assert {row["class_name"] for row in rows(results)} == {"spleen"}


def test_the_attention_u_net_is_one_override_away(dataset_dir, trained, tmp_path):
    options = {"dataset_dir": str(dataset_dir), **FOLD}
    made = run("supervised", "train", "attention", ckpt_dir=str(tmp_path), **TRAINING, **options, **SMALL_ATTENTION)
    network = made.parser.get_parsed_content("network_def")
    assert isinstance(network, AttentionUnet)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    plain = with_image_norm(AttentionUnet(2, 1, 3, channels=(4, 8), strides=(2,)))
    assert plain.load_state_dict(load(tmp_path / "model.pt")["model"])
    evaluation = {"checkpoint": str(tmp_path / "model.pt"), "output_dir": str(tmp_path / "eval")}
    run("supervised", "evaluate", **options, **evaluation)
    assert len(rows(tmp_path / "eval")) == 8


def test_masks_have_the_numbers_of_the_annotated_scan(scans, tmp_path):
    image, label = scans.make(9)
    paths = {key: str(scans.save(tmp_path / f"{key}.nii.gz", array)) for key, array in (
        ("support_image", image), ("support_label", np.select([label == 1, label == 2], [7, 3]).astype(np.uint8))
    )}  # fmt: skip
    scan, truth = scans.make(0)
    query = scans.save(tmp_path / "queries" / "a.nii.gz", scan)
    model, options = tmp_path / "model", {"dataset_dir": str(query.parent)}
    training = {"ckpt_dir": str(model), "epoch_length": 60, "max_epochs": 1, "optimizer#lr": 0.01}
    run("supervised", "train", **options, **paths, **training)
    run("supervised", "inference", **options, checkpoint=str(model / "model.pt"), output_dir=str(tmp_path / "masks"))
    mask = nibabel.load(tmp_path / "masks" / "a_seg.nii.gz")
    np.testing.assert_allclose(mask.affine, nibabel.load(query).affine, atol=1e-4)
    values = np.asarray(mask.dataobj)
    assert values.shape == scan.shape
    assert set(np.unique(values)) <= {0, 3, 7}
    assert 2 * ((values == 7) & (truth == 1)).sum() / ((values == 7).sum() + (truth == 1).sum()) > 0.5


class TestRefusals:
    def test_nobody_said_which_scan_is_annotated(self, dataset_dir, tmp_path):
        text = refusal("supervised", "train", dataset_dir=str(dataset_dir), ckpt_dir=str(tmp_path))
        assert text == "No scan is said to be annotated: give support_image and support_label, or a fold."

    def test_a_class_that_the_support_does_not_show(self, scans, tmp_path):
        data = scans.data_set(tmp_path / "data", labels={"0": "background", "1": "liver", "2": "spleen", "3": "kidney"})
        text = refusal("supervised", "train", dataset_dir=str(data), ckpt_dir=str(tmp_path / "model"), **FOLD)
        assert text.startswith("No annotated slice shows class 3 of 1 to 3")
