# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The ELSNet bundle: from one annotated scan and unlabeled ones to label maps."""

from __future__ import annotations

import csv
import shutil

import nibabel
import numpy as np
import pytest
import torch
from image_bundles import load, refusal, run, workflow
from monai.networks.nets import BasicUNet
from scipy import ndimage

from monai_fewshot.networks.nets import EmbeddingNetwork, MTUNet

pytestmark = pytest.mark.default_dtype
TRAINING = {"num_folds": 3, "batch_size": 2, "epoch_length": 2, "max_epochs": 2}
FOLD = {"num_folds": 3, "fold": 0}


@pytest.fixture(scope="module")
def trained(dataset_dir, tmp_path_factory):
    """Folder of a training of fold 0, with support scan_2."""
    folder = tmp_path_factory.mktemp("models")
    run("elsnet", "train", dataset_dir=str(dataset_dir), ckpt_dir=str(folder), fold=0, **TRAINING)
    return folder


def files(dataset_dir, name, part="imagesTr"):
    return str(dataset_dir / part / f"{name}.nii.gz")


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


class TestTrain:
    def test_every_stage_leaves_its_network_and_the_last_is_the_result(self, trained):
        first, second, last = (load(trained / path) for path in ("stage_1/model.pt", "stage_2/model.pt", "model.pt"))
        assert_equal(second["model"], last["model"])
        assert any(not torch.equal(first["model"][name], second["model"][name]) for name in first["model"])
        assert last["settings"]["preparation"]["classes"] == {1: "liver", 2: "spleen"}
        assert last["provenance"]["settings"]["iterations"] == 4
        assert len(last["provenance"]["data"]) == 64

    def test_the_annotated_slice_is_of_the_support_and_shows_every_class(self, dataset_dir, tmp_path):
        made = workflow("elsnet", "train", dataset_dir=str(dataset_dir), ckpt_dir=str(tmp_path), **FOLD)
        assert made.check_properties() == []
        annotated, unlabeled = (made.parser.get_parsed_content(key) for key in ("annotated", "unlabeled"))
        assert [scan["name"] for scan in annotated] == ["scan_2"]
        assert [scan["name"] for scan in unlabeled] == ["scan_3", "scan_4", "scan_5"]
        assert all("label" not in scan for scan in unlabeled)
        samples = made.parser.get_parsed_content("train#dataset")()
        assert samples.exemplars.image.shape == (1, 1, 32, 32)
        assert samples.exemplars.label.unique().tolist() == [0, 1, 2]
        assert torch.equal(samples.synthesis.backgrounds, made.parser.get_parsed_content("stacks")[1].image)

    def test_backgrounds_without_organs_are_of_the_annotated_scan(self, dataset_dir, tmp_path):
        options = {"dataset_dir": str(dataset_dir), "ckpt_dir": str(tmp_path), **FOLD}
        made = workflow("elsnet", "train", backgrounds="organ_free", **options)
        label = np.asarray(nibabel.load(files(dataset_dir, "scan_2", "labelsTr")).dataobj)
        empty = [z for z in range(label.shape[2]) if not label[..., z].any()]
        stack = made.parser.get_parsed_content("stacks")[0]
        backgrounds = made.parser.get_parsed_content("synthesis").backgrounds
        assert torch.equal(backgrounds, stack.image[empty])
        assert len(backgrounds) == 2

    def test_labels_of_unlabeled_scans_are_read_for_the_log_alone(self, dataset_dir, scans, trained, tmp_path, caplog):
        data = scans.data_set(tmp_path / "data")
        for name in ("scan_0", "scan_1", "scan_3", "scan_4", "scan_5"):
            (data / "labelsTr" / f"{name}.nii.gz").write_bytes(b"nothing")
        run("elsnet", "train", dataset_dir=str(data), ckpt_dir=str(tmp_path / "a"), fold=0, **TRAINING)
        settings = {**TRAINING, "compare_pseudo_labels": True, "ckpt_dir": str(tmp_path / "b")}
        with caplog.at_level("INFO"):
            run("elsnet", "train", dataset_dir=str(dataset_dir), fold=0, **settings)
        assert "Dice of the pseudo-labels, by class: 0." in caplog.text
        for folder in ("a", "b"):
            assert_equal(load(tmp_path / folder / "model.pt")["model"], load(trained / "model.pt")["model"])

    def test_an_annotated_scan_beside_a_folder_of_images(self, dataset_dir, tmp_path):
        images = tmp_path / "images"
        shutil.copytree(dataset_dir / "imagesTr", images)
        settings = {
            "dataset_dir": str(images),
            "support_image": str(images / "scan_1.nii.gz"),
            "support_label": files(dataset_dir, "scan_1", "labelsTr"),
            "ckpt_dir": str(tmp_path / "model"),
            "num_support_slices": 3,
        }
        made = run("elsnet", "train", **{**TRAINING, **settings})
        unlabeled = made.parser.get_parsed_content("unlabeled")
        assert [scan["name"] for scan in unlabeled] == [f"scan_{n}" for n in (0, 2, 3, 4, 5)]
        assert len(made.parser.get_parsed_content("examples")) == 3
        found = load(tmp_path / "model" / "model.pt")["settings"]["preparation"]
        assert found["classes"] == {1: "class 1", 2: "class 2"}

    def test_an_interrupted_training_ends_like_an_uninterrupted_one(self, dataset_dir, trained, tmp_path):
        settings = {**TRAINING, "dataset_dir": str(dataset_dir), "ckpt_dir": str(tmp_path), "fold": 0}
        run("elsnet", "train", **{**settings, "rounds": 0})
        before = (tmp_path / "stage_1" / "model.pt").read_bytes()
        run("elsnet", "train", resume=True, **settings)
        assert (tmp_path / "stage_1" / "model.pt").read_bytes() == before
        assert_equal(load(tmp_path / "model.pt")["model"], load(trained / "model.pt")["model"])
        assert "holds checkpoints of an earlier training" in refusal("elsnet", "train", **settings)

    def test_rows_of_the_ablation_by_override(self, dataset_dir, tmp_path):
        options = {**TRAINING, "dataset_dir": str(dataset_dir), "ckpt_dir": str(tmp_path), "fold": 0, "rounds": 0}
        made = run("elsnet", "train", synthesis="$None", contrast_weight=0.0, **options)
        assert made.parser.get_parsed_content("train#dataset")()[0]["image"].shape == (1, 1, 32, 32)
        assert not (tmp_path / "stage_2").exists()

    def test_the_papers_settings(self, dataset_dir, tmp_path):
        options = {"dataset_dir": str(dataset_dir), "ckpt_dir": str(tmp_path), "image_size": [224, 224], **FOLD}
        made = workflow("elsnet", "train", "paper", **options)
        network = made.parser.get_parsed_content("network_def")
        assert isinstance(network.network, MTUNet)
        optimizer = made.parser.get_parsed_content("optimizer")(network.parameters())
        assert isinstance(optimizer, torch.optim.Adam)
        assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (1e-4, 1e-4)
        assert made.parser.get_parsed_content("batch_size") == 12
        assert made.parser.get_parsed_content("synthesis").arrangement == "free"
        assert made.parser.get_parsed_content("loss").contrast.temperature == 0.07
        with torch.no_grad():
            output = network.train()(torch.rand(1, 1, 64, 64))
        assert output.logits.shape == (1, 3, 64, 64)
        assert output.embedding.shape[1] == 1024


class TestEvaluate:
    def test_dice_is_that_of_a_plain_computation(self, trained, dataset_dir, tmp_path):
        options = {"dataset_dir": str(dataset_dir), "checkpoint": str(trained / "model.pt"), **FOLD}
        run("elsnet", "evaluate", output_dir=str(tmp_path), dtype="$torch.float32", **options)
        with open(tmp_path / "results.csv", newline="") as file:
            rows = {(r["scan"], r["class_name"]): r for r in csv.DictReader(file) if r["protocol"] == "whole_volume"}
        assert set(rows) == {(scan, organ) for scan in ("scan_0", "scan_1") for organ in ("liver", "spleen")}
        network = EmbeddingNetwork(BasicUNet(2, 1, 3, features=(4, 4, 8, 8, 8, 4)), "down_4").eval()
        network.load_state_dict(load(trained / "model.pt")["model"])
        for scan in ("scan_0", "scan_1"):
            image, truth = (
                np.asarray(nibabel.load(files(dataset_dir, scan, part)).dataobj, dtype=np.float32)
                for part in ("imagesTr", "labelsTr")
            )
            image = np.clip(image, *np.percentile(image, (0.5, 99.5)))
            image = torch.from_numpy((image - image.mean()) / image.std()).float().permute(2, 0, 1)[:, None]
            with torch.no_grad():
                small = torch.nn.functional.interpolate(image, (32, 32), mode="bilinear", antialias=True)
                logits = torch.nn.functional.interpolate(network(small), image.shape[2:], mode="bilinear")
            decided = logits.argmax(1).permute(1, 2, 0).numpy()
            for number, organ in ((1, "liver"), (2, "spleen")):
                components, count = ndimage.label(decided == number)
                mask = components == np.bincount(components.ravel())[1:].argmax() + 1 if count else components > 0
                expected = 2 * (mask & (truth == number)).sum() / (mask.sum() + (truth == number).sum())
                assert float(rows[scan, organ]["dice"]) == pytest.approx(expected, abs=1e-3)

    def test_classes_are_those_that_the_network_knows(self, dataset_dir, tmp_path):
        options = {"dataset_dir": str(dataset_dir), **TRAINING, "fold": 0, "rounds": 0, "ckpt_dir": str(tmp_path)}
        run("elsnet", "train", classes=["spleen"], **options)
        evaluate = {"checkpoint": str(tmp_path / "model.pt"), "output_dir": str(tmp_path / "eval"), **FOLD}
        run("elsnet", "evaluate", dataset_dir=str(dataset_dir), **evaluate)
        with open(tmp_path / "eval" / "results.csv", newline="") as file:
            assert {row["class_name"] for row in csv.DictReader(file)} == {"spleen"}


class TestInference:
    def test_masks_have_the_numbers_of_the_annotated_scan(self, dataset_dir, tmp_path, scans):
        image, label = scans.make(9)
        scans.save(tmp_path / "image.nii.gz", image)
        scans.save(tmp_path / "label.nii.gz", np.select([label == 1, label == 2], [7, 3]).astype(np.uint8))
        queries = tmp_path / "queries"
        for name in ("scan_0", "scan_1"):
            queries.mkdir(exist_ok=True)
            shutil.copy(files(dataset_dir, name), queries)
        options = {**TRAINING, "epoch_length": 30, "ckpt_dir": str(tmp_path / "model")}
        support = {"support_image": str(tmp_path / "image.nii.gz"), "support_label": str(tmp_path / "label.nii.gz")}
        run("elsnet", "train", dataset_dir=str(queries), **support, **options)
        made = {"checkpoint": str(tmp_path / "model" / "model.pt"), "output_dir": str(tmp_path / "masks")}
        run("elsnet", "inference", dataset_dir=str(queries), **made)
        for name in ("scan_0", "scan_1"):
            mask, scan = (
                nibabel.load(tmp_path / "masks" / f"{name}_seg.nii.gz"),
                nibabel.load(queries / f"{name}.nii.gz"),
            )
            np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-4)
            assert mask.shape == scan.shape
            truth = np.asarray(nibabel.load(files(dataset_dir, name, "labelsTr")).dataobj)
            values = np.asarray(mask.dataobj)
            assert set(np.unique(values)) <= {0, 3, 7}
            overlap = 2 * ((values == 7) & (truth == 1)).sum() / ((values == 7).sum() + (truth == 1).sum())
            assert overlap > 0.5


class TestRefusals:
    def test_nobody_said_which_scan_is_annotated(self, dataset_dir, tmp_path):
        text = refusal("elsnet", "train", dataset_dir=str(dataset_dir), ckpt_dir=str(tmp_path))
        assert text == "No scan is said to be annotated: give support_image and support_label, or a fold."

    def test_a_label_without_its_image(self, dataset_dir, tmp_path):
        label = files(dataset_dir, "scan_1", "labelsTr")
        text = refusal("elsnet", "train", dataset_dir=str(dataset_dir), ckpt_dir=str(tmp_path), support_label=label)
        assert text.startswith("support_image and support_label belong together")

    def test_the_annotated_scan_alone(self, scans, tmp_path):
        image, label = scans.make(1)
        scans.save(tmp_path / "data" / "a.nii.gz", image)
        scans.save(tmp_path / "label.nii.gz", label)
        support = {
            "support_image": str(tmp_path / "data" / "a.nii.gz"),
            "support_label": str(tmp_path / "label.nii.gz"),
        }
        text = refusal("elsnet", "train", dataset_dir=str(tmp_path / "data"), ckpt_dir=str(tmp_path / "m"), **support)
        assert text.endswith("has no scan beside the annotated one: add scans, without labels.")

    def test_a_slice_that_lacks_a_class(self, dataset_dir, tmp_path):
        options = {"dataset_dir": str(dataset_dir), "ckpt_dir": str(tmp_path), "support_slices": [0], **FOLD}
        assert refusal("elsnet", "train", **options).startswith("Slices [0] do not show classes [1, 2]")

    def test_a_checkpoint_that_does_not_know_its_classes(self, dataset_dir, tmp_path):
        torch.save({"model": {}}, tmp_path / "other.pt")
        text = refusal(
            "elsnet", "inference", dataset_dir=str(dataset_dir / "imagesTr"), checkpoint=str(tmp_path / "other.pt")
        )
        assert text.endswith(
            "other.pt does not tell its network and preparation: it is not of a training of this version."
        )
