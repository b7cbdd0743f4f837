# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The bundle of self-training: one annotated scan and the others of its folder to label maps."""

from __future__ import annotations

import csv
import logging

import nibabel
import numpy as np
import pytest
import torch
from image_bundles import load, refusal, run, workflow

from monai_fewshot.workflows import self_training

pytestmark = pytest.mark.default_dtype
BUNDLE = "self_training"
FOLD = {"num_folds": 3, "fold": 0}
QUERIES, SUPPORT, OTHERS = ("scan_0", "scan_1"), "scan_2", ("scan_3", "scan_4", "scan_5")
SHORT = {"batch_size": 2, "unlabeled_batch_size": 2, "epoch_length": 10, "max_epochs": 2}
EARLY = {"progress#latest_start": 0.0, "progress#confidence": 0.4}


@pytest.fixture(scope="module")
def trained(dataset_dir, tmp_path_factory):
    """Folder of a training on fold 0, which learns from unlabeled slices from its tenth step on."""
    folder = tmp_path_factory.mktemp("models")
    run(BUNDLE, "train", dataset_dir=str(dataset_dir), ckpt_dir=str(folder), **SHORT, **FOLD, **EARLY)
    return folder


def stop_at(iteration):
    def stop(engine):
        if engine.state.iteration == iteration:
            raise KeyboardInterrupt

    return stop


def interrupt(iteration, **options):
    """Train until a step, at which Ctrl+C is pressed."""
    made = workflow(BUNDLE, "train", **options)
    made.parser.get_parsed_content("train#trainer").add_event_handler("ITERATION_COMPLETED", stop_at(iteration))
    with pytest.raises(KeyboardInterrupt):
        made.run()


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def rows(folder):
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def names(scans):
    return tuple(scan["name"] for scan in scans)


class TestTrain:
    def test_the_teacher_is_what_is_kept_and_says_what_made_it(self, trained):
        model, last = load(trained / "model.pt"), load(trained / "checkpoint_epoch=2.pt")
        assert_equal(model["model"], last["teacher"])
        assert any(not torch.equal(model["model"][name], last["model"][name]) for name in model["model"])
        assert model["settings"]["preparation"]["classes"] == {1: "liver", 2: "spleen"}
        settings = model["provenance"]["settings"]
        assert (settings["scans"], settings["inductive"]) == ({"annotated": 1, "unlabeled": 3}, True)
        assert last["progress"]["start"] == 10
        assert last["trainer"]["iteration"] == 20

    @pytest.mark.parametrize(("inductive", "unlabeled"), [(True, OTHERS), (False, (*QUERIES, *OTHERS))])
    def test_queries_are_learned_from_only_where_that_is_asked_for(self, inductive, unlabeled, dataset_dir):
        options = {"dataset_dir": str(dataset_dir), "inductive": inductive, "initialize": [], **FOLD}
        made = workflow(BUNDLE, "train", **options)
        assert names(made.parser.get_parsed_content("annotated")) == (SUPPORT,)
        scans = made.parser.get_parsed_content("unlabeled")
        assert names(scans) == unlabeled
        assert all(set(scan) == {"name", "image"} for scan in scans)

    def test_the_queries_are_not_even_read(self, scans, trained, tmp_path):
        data = scans.data_set(tmp_path / "data")
        for part in ("imagesTr", "labelsTr"):
            for file in (data / part).iterdir():
                if file.name.removesuffix(".nii.gz") in QUERIES or (part == "labelsTr" and SUPPORT not in file.name):
                    file.write_bytes(b"nothing")
        options = {"dataset_dir": str(data), "ckpt_dir": str(tmp_path / "model")}
        run(BUNDLE, "train", **options, **SHORT, **FOLD, **EARLY)
        assert_equal(load(tmp_path / "model" / "model.pt")["model"], load(trained / "model.pt")["model"])

    def test_slices_that_are_not_annotated_count_as_unlabeled(self, dataset_dir, tmp_path):
        options = {"dataset_dir": str(dataset_dir), "ckpt_dir": str(tmp_path), **SHORT, **FOLD}
        made = workflow(BUNDLE, "train", **options, annotated_slices=[2, 3])
        assert made.check_properties() == []
        annotated, unlabeled = made.parser.get_parsed_content("streams")
        assert len(annotated.dataset.stack.scan) == 2
        assert unlabeled.dataset.stack.scan.bincount().tolist() == [6, 6, 6, 4]
        text = refusal(BUNDLE, "train", **options, annotated_slices=[9])
        assert text == "annotated_slices: no slices [9], the scan has 0 to 5."
        text = refusal(BUNDLE, "train", **options, annotated_slices=[0])
        assert text.startswith("No annotated slice shows class 1, 2 of 1 to 2")

    def test_first_labels_of_another_method(self, scans, tmp_path):
        data = scans.data_set(tmp_path / "data")
        options = {"dataset_dir": str(data), "ckpt_dir": str(tmp_path / "model"), **SHORT, **FOLD}
        options |= {"progress#latest_start": 0.9, "seed_labels": str(data / "labelsTr")}
        run(BUNDLE, "train", **options)
        assert load(tmp_path / "model" / "checkpoint_epoch=2.pt")["progress"]["start"] == 20
        made = workflow(BUNDLE, "train", **options, initialize=[])
        stack = made.parser.get_parsed_content("streams").unlabeled_stack
        assert stack.label.unique().tolist() == [0, 1, 2]
        assert len(stack.scan.unique()) == len(OTHERS)
        text = refusal(BUNDLE, "train", **options | {"seed_labels": str(data / "imagesTr" / "none")})
        assert "none is no folder" in text

    def test_an_interrupted_training_ends_like_an_uninterrupted_one(self, dataset_dir, trained, tmp_path):
        options = {"dataset_dir": str(dataset_dir), "ckpt_dir": str(tmp_path), **SHORT, **FOLD, **EARLY}
        interrupt(15, **options)
        assert not (tmp_path / "model.pt").exists()
        run(BUNDLE, "train", resume=True, **options)
        one, other = load(tmp_path / "checkpoint_epoch=2.pt"), load(trained / "checkpoint_epoch=2.pt")
        for part in ("model", "teacher"):
            assert_equal(one[part], other[part])
        assert torch.equal(one["progress"]["dice"], other["progress"]["dice"])
        assert one["progress"]["start"] == other["progress"]["start"] == 10
        assert_equal(load(tmp_path / "model.pt")["model"], load(trained / "model.pt")["model"])
        assert "holds checkpoints of an earlier training" in refusal(BUNDLE, "train", **options)

    def test_a_resumed_training_of_some_minutes_keeps_its_length(self, dataset_dir, tmp_path, monkeypatch, caplog):
        monkeypatch.setattr(self_training, "_seconds_per_step", lambda trainer: 3.0)
        options = {"dataset_dir": str(dataset_dir), "minutes": 1, **SHORT, **FOLD, **EARLY}
        with caplog.at_level(logging.INFO):
            run(BUNDLE, "train", **options, ckpt_dir=str(tmp_path / "whole"))
        assert "A step takes 3.00 s: 20 steps in 1 minutes." in caplog.text
        assert "1 minutes are 20 steps, too few to find much here: take 10 minutes or more." in caplog.text
        interrupt(15, **options, ckpt_dir=str(tmp_path / "parts"))
        monkeypatch.setattr(self_training, "_seconds_per_step", lambda trainer: 0.001)
        run(BUNDLE, "train", resume=True, **options, ckpt_dir=str(tmp_path / "parts"))
        one, other = (load(tmp_path / part / "checkpoint_epoch=2.pt") for part in ("whole", "parts"))
        assert_equal(one["model"], other["model"])
        assert_equal(one["teacher"], other["teacher"])
        assert one["lr_scheduler"]["total_iters"] == other["lr_scheduler"]["total_iters"] == 20
        assert one["trainer"]["iteration"] == other["trainer"]["iteration"] == 20

    def test_timing_changes_nothing(self, dataset_dir, trained, tmp_path, monkeypatch):
        timed = self_training._seconds_per_step
        monkeypatch.setattr(self_training, "_seconds_per_step", lambda trainer: 3.0 + 0 * timed(trainer))
        options = {"dataset_dir": str(dataset_dir), "ckpt_dir": str(tmp_path), "minutes": 1}
        run(BUNDLE, "train", **options, **{**SHORT, "max_epochs": 7}, **FOLD, **EARLY)
        assert_equal(load(tmp_path / "model.pt")["model"], load(trained / "model.pt")["model"])

    def test_a_folder_with_nothing_but_the_example(self, scans, tmp_path, caplog):
        image, label = scans.make(3)
        paths = {
            "support_image": str(scans.save(tmp_path / "data" / "a.nii.gz", image)),
            "support_label": str(scans.save(tmp_path / "labels" / "a.nii.gz", label)),
        }
        options = {"dataset_dir": str(tmp_path / "data"), "ckpt_dir": str(tmp_path / "model"), **SHORT, "max_epochs": 1}
        run(BUNDLE, "train", **paths, **options, **EARLY)
        assert "There is no scan beside the annotated one: the network learns from that alone." in caplog.text
        assert load(tmp_path / "model" / "model.pt")["provenance"]["settings"]["scans"]["unlabeled"] == 0

    def test_minutes_must_be_above_0(self, dataset_dir, tmp_path):
        options = {"dataset_dir": str(dataset_dir), "ckpt_dir": str(tmp_path), **SHORT, **FOLD}
        text = refusal(BUNDLE, "train", minutes=0, **options)
        assert text == "minutes is 0, must be above 0; 20 is a good choice for a CPU."


def test_evaluation_knows_the_classes_and_scores_the_queries(trained, dataset_dir, tmp_path):
    options = {"dataset_dir": str(dataset_dir), "checkpoint": str(trained / "model.pt"), "output_dir": str(tmp_path)}
    run(BUNDLE, "evaluate", **options, **FOLD)
    found = {(row["scan"], row["class_name"], row["protocol"]) for row in rows(tmp_path)}
    protocols = ("alpnet", "whole_volume")
    assert found == {(s, organ, p) for s in QUERIES for organ in ("liver", "spleen") for p in protocols}


def test_masks_have_grid_and_class_numbers_of_their_scans_and_of_the_example(scans, tmp_path):
    image, label = scans.make(9)
    paths = {
        "support_image": str(scans.save(tmp_path / "support_image.nii.gz", image)),
        "support_label": str(
            scans.save(tmp_path / "support_label.nii.gz", np.select([label == 1, label == 2], [7, 3]).astype(np.uint8))
        ),
    }
    scan, truth = scans.make(0)
    query = scans.save(tmp_path / "queries" / "a.nii.gz", scan)
    scans.save(tmp_path / "queries" / "b.nii.gz", scans.make(1)[0])
    model, options = tmp_path / "model", {"dataset_dir": str(query.parent)}
    training = {"ckpt_dir": str(model), **SHORT, "epoch_length": 50, "max_epochs": 1, "optimizer#lr": 0.01}
    run(BUNDLE, "train", **options, **paths, **training, **{"teacher#momentum": 0.1})
    options |= {"checkpoint": str(model / "model.pt"), "output_dir": str(tmp_path / "masks")}
    made = workflow(BUNDLE, "inference", **options)
    assert made.check_properties() == []
    made.run()
    mask = nibabel.load(tmp_path / "masks" / "a_seg.nii.gz")
    np.testing.assert_allclose(mask.affine, nibabel.load(query).affine, atol=1e-4)
    values = np.asarray(mask.dataobj)
    assert values.shape == scan.shape
    assert set(np.unique(values)) <= {0, 3, 7}
    assert 2 * ((values == 7) & (truth == 1)).sum() / ((values == 7).sum() + (truth == 1).sum()) > 0.5
