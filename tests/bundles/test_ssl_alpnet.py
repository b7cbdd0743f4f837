# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch
from dicom_files import oblique, ras_affine, write_rtstruct, write_seg, write_series
from ignite.engine import Events
from monai.bundle import verify_net_in_out
from scipy import ndimage
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_fewshot.data import load_folds, series_name
from monai_fewshot.inferers import FewShotVolumeInferer
from monai_fewshot.networks.encoders import UNetEncoder
from monai_fewshot.networks.nets import ALPNet

pytestmark = pytest.mark.default_dtype
EPOCHS = 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory, at_root, dataset_dir):
    """A bundle whose folds 0, for four epochs, and 2 are trained."""
    bundle = at_root(tmp_path_factory.mktemp("bundle"))
    bundle.run("train", dataset_dir=str(dataset_dir), fold=0, max_epochs=EPOCHS)
    bundle.run("train", dataset_dir=str(dataset_dir), fold=2)
    return bundle


@pytest.fixture(scope="module")
def evaluated(trained, dataset_dir):
    trained.run("evaluate", dataset_dir=str(dataset_dir), fold=[0, 2], dtype="$torch.float32")
    return trained.root / "eval"


def _load(file):
    return torch.load(file, map_location="cpu", weights_only=True)


def _assert_equal(one, other, path=""):
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            if key != "started":
                _assert_equal(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for number, pair in enumerate(zip(one, other, strict=True)):
            _assert_equal(*pair, f"{path}/{number}")
    else:
        assert one == other, path


def _support(dataset_dir, name="scan_5"):
    return {
        "support_image": str(dataset_dir / "imagesTr" / f"{name}.nii.gz"),
        "support_label": str(dataset_dir / "labelsTr" / f"{name}.nii.gz"),
    }


def _infer(trained, queries, dataset_dir, output_dir, **override):
    return trained.run(
        "inference",
        **{
            "dataset_dir": str(queries),
            "checkpoint": str(trained.root / "models" / "fold0" / "model.pt"),
            "output_dir": str(output_dir),
            **_support(dataset_dir),
            **override,
        },
    )


class TestTrain:
    def test_leaves_checkpoints_and_logs(self, trained):
        folder = trained.root / "models" / "fold0"
        assert {file.name for file in folder.glob("*.pt")} == {
            "checkpoint_epoch=3.pt",
            "checkpoint_epoch=4.pt",
            "model.pt",
        }
        events = {}
        for file in (folder / "logs").iterdir():
            reader = EventAccumulator(str(file))
            reader.Reload()
            tags = reader.Tags()
            events |= {tag: [event.step for event in reader.Scalars(tag)] for tag in tags["scalars"]}
            events |= {tag: [event.step for event in reader.Images(tag)] for tag in tags["images"]}
        assert events["train_loss"] == list(range(2, 2 * EPOCHS + 1, 2))
        assert events["val_dice"] == list(range(1, EPOCHS + 1))
        assert any(len(steps) == EPOCHS for tag, steps in events.items() if "image" in tag.lower() or "input" in tag)

    def test_checkpoints_say_what_made_them(self, trained):
        for file in (trained.root / "models" / "fold0").glob("*.pt"):
            made = _load(file)["provenance"]
            assert made["settings"]["seed"] == 0
            assert made["settings"]["fold"] == 0
            assert made["settings"]["iterations"] == 2 * EPOCHS
            assert len(made["data"]) == 64

    def test_the_best_model_is_that_of_the_best_epoch(self, trained):
        folder = trained.root / "models" / "fold0"
        last = _load(folder / "checkpoint_epoch=4.pt")
        ((best, _),) = last["best_model"]["_saved"]
        assert 0 < best <= 1
        assert last["trainer"]["iteration"] == 2 * EPOCHS

    def test_the_same_seed_gives_the_same_weights(self, trained, at_root, dataset_dir, tmp_path):
        at_root(tmp_path).run("train", dataset_dir=str(dataset_dir), fold=0, max_epochs=EPOCHS, seed=0)
        for name in ("checkpoint_epoch=4.pt", "model.pt"):
            files = (root / "models" / "fold0" / name for root in (tmp_path, trained.root))
            _assert_equal(*(_load(file) for file in files))

    @pytest.mark.parametrize("damaged", [(), ("checkpoint_epoch=2.pt",)], ids=["killed", "killed while it wrote"])
    def test_an_interrupted_training_ends_like_an_uninterrupted_one(
        self, trained, at_root, dataset_dir, tmp_path, damaged
    ):
        class PowerCutError(Exception):
            pass

        def cut(engine):
            raise PowerCutError

        bundle, options = at_root(tmp_path), {"dataset_dir": str(dataset_dir), "fold": 0, "max_epochs": EPOCHS}
        workflow = bundle.workflow("train", workflow_type="train", **options)
        workflow.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=5), cut)
        with pytest.raises(RuntimeError) as caught:
            workflow.run()
        assert isinstance(caught.value.__cause__, PowerCutError)
        folder = tmp_path / "models" / "fold0"
        assert {file.name for file in folder.glob("check*.pt")} == {"checkpoint_epoch=1.pt", "checkpoint_epoch=2.pt"}
        for name in damaged:
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(content[: len(content) // 2])
        bundle.run("train", resume=True, **options)
        for name in ("checkpoint_epoch=4.pt", "model.pt"):
            files = (root / "models" / "fold0" / name for root in (tmp_path, trained.root))
            _assert_equal(*(_load(file) for file in files))

    def test_resuming_a_finished_training_changes_nothing(self, trained, dataset_dir):
        folder = trained.root / "models" / "fold0"
        before = {file.name: file.read_bytes() for file in folder.glob("*.pt")}
        trained.run("train", dataset_dir=str(dataset_dir), fold=0, max_epochs=EPOCHS, resume=True)
        assert {file.name: file.read_bytes() for file in folder.glob("*.pt")} == before

    def test_images_without_labels_or_list_suffice(self, at_root, scans, tmp_path):
        for seed, name in enumerate("abc"):
            scans.save(tmp_path / "images" / f"{name}.nii.gz", scans.make(seed)[0])
        at_root(tmp_path).run("train", dataset_dir=str(tmp_path / "images"), max_epochs=1, epoch_length=1)
        assert (tmp_path / "models" / "all_scans" / "model.pt").is_file()

    def test_labels_are_not_read(self, trained, at_root, scans, tmp_path):
        scans.data_set(tmp_path / "data", labels={})
        for file in (tmp_path / "data" / "labelsTr").iterdir():
            file.write_bytes(b"nothing")
        at_root(tmp_path).run("train", fold=0, max_epochs=EPOCHS)
        last = (
            _load(root / "models" / "fold0" / "checkpoint_epoch=4.pt")["model"] for root in (tmp_path, trained.root)
        )
        _assert_equal(*last)

    def test_slices_in_files_train_the_same_network(self, trained, at_root, dataset_dir, tmp_path, caplog):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("monai_fewshot.data.slices.slice_stack.free_memory", lambda: 1)
            at_root(tmp_path).run("train", dataset_dir=str(dataset_dir), fold=0, max_epochs=EPOCHS)
        assert f"they go to files in {tmp_path}/models/pseudo_labels; making episodes will be slower" in caplog.text
        assert {file.suffix for file in (tmp_path / "models" / "pseudo_labels").iterdir()} == {".npz"}
        last = (
            _load(root / "models" / "fold0" / "checkpoint_epoch=4.pt")["model"] for root in (tmp_path, trained.root)
        )
        _assert_equal(*last)

    def test_part_of_the_slices(self, at_root, dataset_dir, tmp_path):
        options = {"dataset_dir": str(dataset_dir), "fold": 0, "max_slices": 11}
        parser = at_root(tmp_path).workflow("train", **options).parser
        assert parser.get_parsed_content("stacks")[0].scan.tolist() == [0] * 6
        assert parser.get_parsed_content("provenance").settings["max_slices"] == 11

    @pytest.mark.parametrize(("size", "image_size"), [((257, 40, 2), [33, 41]), ((40, 36, 1), [32, 32])])
    def test_odd_and_single_slices(self, at_root, scans, tmp_path, size, image_size):
        for seed, name in enumerate("ab"):
            scans.save(tmp_path / "data" / f"{name}.nii.gz", scans.make(seed, size)[0] + 1)
        at_root(tmp_path).run("train", max_epochs=1, image_size=image_size)
        assert (tmp_path / "models" / "all_scans" / "model.pt").is_file()

    def test_excluded_classes_leave_their_slices_out(self, at_root, dataset_dir, scans, tmp_path):
        options = {"dataset_dir": str(dataset_dir), "fold": 0}
        workflow = at_root(tmp_path).workflow("train", exclude_classes=["liver", "Spleen"], **options)
        stack = workflow.parser.get_parsed_content("stacks")[0]
        assert stack.scan.tolist() == [0, 0, 1, 1], "the first and the last slice of each scan show no organ"
        everything = at_root(tmp_path).workflow("train", **options).parser.get_parsed_content("stacks")[0]
        assert everything.scan.tolist() == [0] * 6 + [1] * 6
        assert torch.equal(stack.image, everything.image[[0, 5, 6, 11]])


def test_annotated_classes_by_one_override(at_root, dataset_dir, tmp_path):
    options = {"dataset_dir": str(dataset_dir), "num_folds": 6, "fold": 0, "num_val_scans": 2, "max_epochs": 1}
    workflow = at_root(tmp_path).run("train", "annotated", classes=["spleen"], **options)
    assert (tmp_path / "models" / "fold0" / "model.pt").is_file()
    episode = workflow.parser.get_parsed_content("train#dataset")[0]
    stack = workflow.parser.get_parsed_content("stacks")[0]
    assert set(stack.label.unique().tolist()) == {0, 1, 2}
    assert set(episode["label"].unique().tolist()) == {0, 1}
    assert not torch.equal(episode["image"], episode["support_image"][0])
    made = torch.load(tmp_path / "models" / "fold0" / "model.pt", weights_only=True)["provenance"]["settings"]
    assert made["trained_classes"] == ["spleen"]
    at_root(tmp_path).run("evaluate", dataset_dir=str(dataset_dir), num_folds=6, fold=0, classes=["liver"])
    with open(tmp_path / "eval" / "results.csv", newline="") as file:
        assert {(row["class_name"], row["protocol"]) for row in csv.DictReader(file)} == {
            ("liver", "alpnet"),
            ("liver", "whole_volume"),
        }


def test_excluded_classes_are_not_trained_on(at_root, dataset_dir, tmp_path):
    options = {"dataset_dir": str(dataset_dir), "num_folds": 6, "fold": 0, "exclude_classes": ["liver"]}
    workflow = at_root(tmp_path).workflow("train", "annotated", **options)
    assert workflow.parser.get_parsed_content("trained_classes") == [2]


@pytest.mark.slow
def test_command_line_does_the_same(trained, configs, dataset_dir, tmp_path):
    """Train fold 2 from the shell, in a folder that is not the bundle's."""
    arguments = {
        "config_file": configs / "train.json",
        "bundle_root": tmp_path / "bundle",
        "dataset_dir": dataset_dir,
        "fold": 2,
        "num_folds": 3,
        "image_size": "[32,32]",
        "encoder::channels": "[4,8]",
        "encoder::out_channels": 8,
        "batch_size": 2,
        "epoch_length": 2,
        "max_epochs": 2,
        "num_val_episodes": 2,
        "pseudo_labels::min_size": 40,
        "device": "$torch.device('cpu')",
    }
    pairs = [item for key, value in arguments.items() for item in (f"--{key}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", *pairs],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Epoch[2] Metrics -- val_dice:" in done.stdout
    assert "Saved checkpoint at epoch: 2" in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]
    files = (root / "models" / "fold2" / "checkpoint_epoch=2.pt" for root in (tmp_path / "bundle", trained.root))
    _assert_equal(*(_load(file)["model"] for file in files))


class TestEvaluate:
    def test_every_scan_class_and_protocol_is_scored(self, evaluated, dataset_dir):
        with open(evaluated / "results.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        found = {(int(row["fold"]), row["scan"], row["class_name"], row["protocol"]) for row in rows}
        assert found == {
            (fold.index, name, organ, protocol)
            for fold in load_folds(dataset_dir, 3)
            if fold.index in (0, 2)
            for name in fold.query
            for organ in ("liver", "spleen")
            for protocol in ("alpnet", "whole_volume")
        }
        assert len(found) == len(rows) == 16
        assert all(0 <= float(row["dice"]) <= 1 for row in rows)

    def test_results_and_report_name_every_scan(self, evaluated):
        results = json.loads((evaluated / "results.json").read_text())
        text, page = json.dumps(results), (evaluated / "report.html").read_text()
        for name in ("scan_0", "scan_1", "scan_4", "scan_5"):
            assert name in text
            assert name in page
        assert "scan_2" not in page
        assert results["provenance"]["settings"]["fold"] == [0, 2]
        training = results["provenance"]["training"]
        assert {fold: made["settings"]["fold"] for fold, made in training.items()} == {"0": 0, "2": 2}

    def test_dice_is_that_of_a_plain_computation(self, evaluated, trained, dataset_dir):
        with open(evaluated / "results.csv", newline="") as file:
            rows = {
                (row["class_name"], row["protocol"]): float(row["dice"])
                for row in csv.DictReader(file)
                if row["scan"] == "scan_1"
            }

        def read(name):
            image, label = (
                np.asarray(nibabel.load(dataset_dir / folder / f"{name}.nii.gz").dataobj, dtype=np.float32)
                for folder in ("imagesTr", "labelsTr")
            )
            return torch.from_numpy((image - image.mean()) / image.std())[None, None], torch.from_numpy(label)[
                None, None
            ]

        network = ALPNet(2, UNetEncoder(2, 1, (4, 8), 8, norm="instance"), train_window=8).eval()
        network.load_state_dict(_load(trained.root / "models" / "fold0" / "model.pt")["model"])
        (image, label), support = read("scan_1"), [part[None] for part in read("scan_2")]
        inferer = FewShotVolumeInferer(["alpnet", "whole_volume"], 2, [32, 32], threshold=0.25)
        margins = inferer(image, network, *support, label)
        for (organ, protocol), dice in rows.items():
            number = {"liver": 1, "spleen": 2}[organ]
            truth = label[0, 0].numpy() == number
            components, _ = ndimage.label(margins[protocol][0, number].numpy() > 0)
            mask = components == np.bincount(components.ravel())[1:].argmax() + 1
            if protocol == "alpnet":
                held = np.flatnonzero(truth.any((0, 1)))
                mask[..., : held[0]] = mask[..., held[-1] + 1 :] = False
            expected = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
            assert dice == pytest.approx(expected, abs=1e-3)

    def test_some_classes_by_name(self, evaluated, trained, dataset_dir, tmp_path):
        options = {"dataset_dir": str(dataset_dir), "fold": 2, "output_dir": str(tmp_path), "dtype": "$torch.float32"}
        trained.run("evaluate", classes=["Spleen"], **options)

        def rows(folder):
            with open(folder / "results.csv", newline="") as file:
                return [
                    (row["scan"], row["class_name"], row["protocol"], row["dice"], row["hd95"])
                    for row in csv.DictReader(file)
                    if row["fold"] == "2" and row["class_name"] == "spleen"
                ]

        assert len(rows(tmp_path)) == 4
        assert rows(tmp_path) == rows(evaluated)
        assert "liver" not in (tmp_path / "results.csv").read_text()

    def test_classes_are_numbered_in_the_order_they_are_named(self, trained, dataset_dir, scans):
        workflow = trained.workflow("evaluate", dataset_dir=str(dataset_dir), fold=0, classes=["spleen", "liver"])
        evaluation = workflow.parser.get_parsed_content("evaluation")
        label = evaluation.evaluation.transform(evaluation.scans[0])["label"][0].numpy()
        raw = scans.make(0)[1]
        np.testing.assert_array_equal(label == 1, raw == 2)
        np.testing.assert_array_equal(label == 2, raw == 1)
        assert evaluation.evaluation.class_names == ["spleen", "liver"]

    def test_other_protocols(self, trained, dataset_dir, tmp_path):
        trained.run("evaluate", dataset_dir=str(dataset_dir), fold=0, protocol="adnet_ep2", output_dir=str(tmp_path))
        with open(tmp_path / "results.csv", newline="") as file:
            assert {row["protocol"] for row in csv.DictReader(file)} == {"adnet_ep2", "whole_volume"}


class TestInference:
    @pytest.fixture(scope="class")
    def masks(self, trained, dataset_dir, tmp_path_factory):
        folder = tmp_path_factory.mktemp("masks")
        _infer(trained, dataset_dir / "imagesTr", dataset_dir, folder)
        return folder

    def test_a_label_map_lies_on_its_scan(self, masks, dataset_dir):
        assert {file.name for file in masks.glob("[!.]*")} == {f"scan_{i}_seg.nii.gz" for i in range(6)}
        for i in range(6):
            mask, scan = (
                nibabel.load(masks / f"scan_{i}_seg.nii.gz"),
                nibabel.load(dataset_dir / f"imagesTr/scan_{i}.nii.gz"),
            )
            assert mask.shape == scan.shape
            assert mask.get_data_dtype() == np.uint8
            np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-5)
            assert set(np.unique(mask.dataobj)) <= {0, 1, 2}
            assert np.asarray(mask.dataobj).any()

    def test_the_support_itself_is_segmented_better(self, masks, dataset_dir):
        """Few iterations do not train much, but a scan resembles itself more than others."""
        dice = []
        for i in range(6):
            mask = np.asarray(nibabel.load(masks / f"scan_{i}_seg.nii.gz").dataobj)
            label = np.asarray(nibabel.load(dataset_dir / f"labelsTr/scan_{i}.nii.gz").dataobj)
            dice.append(
                np.mean(
                    [2 * ((mask == c) & (label == c)).sum() / ((mask == c).sum() + (label == c).sum()) for c in (1, 2)]
                )
            )
        assert dice[5] > np.mean(dice[:5])

    def test_finished_scans_are_passed_over_and_damaged_ones_made_again(self, masks, trained, dataset_dir):
        damaged, kept = masks / "scan_3_seg.nii.gz", masks / "scan_1_seg.nii.gz"
        expected, time = np.asarray(nibabel.load(damaged).dataobj), kept.stat().st_mtime_ns
        damaged.write_bytes(damaged.read_bytes()[:200])
        _infer(trained, dataset_dir / "imagesTr", dataset_dir, masks)
        np.testing.assert_array_equal(nibabel.load(damaged).dataobj, expected)
        assert kept.stat().st_mtime_ns == time
        written = damaged.stat().st_mtime_ns
        _infer(trained, dataset_dir / "imagesTr", dataset_dir, masks)
        assert damaged.stat().st_mtime_ns == written
        _infer(trained, dataset_dir / "imagesTr", dataset_dir, masks, overwrite=True)
        assert kept.stat().st_mtime_ns > time

    @pytest.mark.parametrize("size", [(257, 45, 3), (40, 36, 1), (33, 64, 9)])
    def test_grids_of_any_size(self, trained, dataset_dir, scans, tmp_path, size):
        file = scans.save(tmp_path / "in" / "odd.nii.gz", scans.make(9, size)[0])
        _infer(trained, file, dataset_dir, tmp_path / "out")
        mask = nibabel.load(tmp_path / "out" / "odd_seg.nii.gz")
        assert mask.shape == size
        np.testing.assert_allclose(mask.affine, scans.affine, atol=1e-5)

    def test_dicom_series(self, trained, dataset_dir, scans, tmp_path):
        image = np.trunc(scans.make(3)[0])
        settings = {"directions": oblique(), "spacing": (1.5, 2.0, 5.0), "origin": (-20.0, 10.0, 7.0)}
        folder = tmp_path / "in" / "Quxworth^Zebedee"
        order = [3, 1, *range(4, image.shape[2]), 0, 2]
        write_series(folder, image.astype(np.int16), order=order, series_uid="1.2", **settings)
        write_series(folder, modality="CT", file_name="CT{}")
        _infer(trained, tmp_path / "in", dataset_dir, tmp_path / "out", modality="MR")
        (file,) = (tmp_path / "out").glob("[!.]*")
        assert file.name == f"{series_name('1.2')}_seg.nii.gz"
        mask = nibabel.load(file)
        assert mask.shape == image.shape
        affine = ras_affine(**settings)
        np.testing.assert_allclose(mask.affine, affine, atol=1e-4)
        scans.save(tmp_path / "nifti" / "same.nii.gz", image, affine)
        _infer(trained, tmp_path / "nifti", dataset_dir, tmp_path / "out")
        np.testing.assert_array_equal(nibabel.load(tmp_path / "out" / "same_seg.nii.gz").dataobj, mask.dataobj)

    @pytest.mark.parametrize("kind", ["seg", "contours", "nifti"])
    def test_support_of_dicom(self, trained, dataset_dir, scans, tmp_path, kind):
        """The same support as files of NIfTI and DICOM leads to the same mask."""
        image, label = scans.make(4)
        image, box = np.trunc(image), np.zeros(label.shape, np.uint8)
        box[10:30, 12:26, 3:7] = 1
        settings = {"spacing": (1.5, 2.0, 5.0), "origin": (-20.0, 10.0, 7.0)}
        files = write_series(tmp_path / "Quxworth", image.astype(np.int16), **settings)
        affine = ras_affine(**settings)
        nifti = scans.save(tmp_path / "i.nii.gz", image, affine), scans.save(tmp_path / "l.nii.gz", box, affine)
        if kind == "seg":
            annotation = write_seg(tmp_path / "seg.dcm", files, box, ["box"])
        elif kind == "contours":
            corners = np.array([[9.5, 11.5], [29.5, 11.5], [29.5, 25.5], [9.5, 25.5]])
            index = [np.insert(corners, 2, height, axis=1) for height in range(3, 7)]
            drawn = [points * settings["spacing"] + settings["origin"] for points in index]
            annotation = write_rtstruct(tmp_path / "rt.dcm", files, {"box": drawn})
        else:
            flip = np.array([[1, 0, 0, 0], [0, -1, 0, box.shape[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1]])
            annotation = scans.save(tmp_path / "turned.nii.gz", box[:, ::-1], affine @ flip)
        query = dataset_dir / "imagesTr" / "scan_2.nii.gz"
        masks = []
        for support in (nifti, (tmp_path / "Quxworth", annotation)):
            out = tmp_path / f"out{len(masks)}"
            paths = dict(zip(("support_image", "support_label"), map(str, support), strict=True))
            _infer(trained, query, dataset_dir, out, **paths)
            masks.append(np.asanyarray(nibabel.load(out / "scan_2_seg.nii.gz").dataobj))
        np.testing.assert_array_equal(masks[0], masks[1])
        assert masks[0].any()

    def test_several_supports(self, trained, dataset_dir, tmp_path):
        pairs = [_support(dataset_dir, f"scan_{i}") for i in (0, 5)]
        supports = {key: [pair[key] for pair in pairs] for key in pairs[0]}
        _infer(trained, dataset_dir / "imagesTr" / "scan_2.nii.gz", dataset_dir, tmp_path, **supports)
        assert [file.name for file in tmp_path.glob("[!.]*")] == ["scan_2_seg.nii.gz"]

    def test_supports_of_different_size(self, trained, dataset_dir, scans, tmp_path):
        image, label = scans.make(8, (36, 44, 8))
        other = scans.save(tmp_path / "image.nii.gz", image), scans.save(tmp_path / "label.nii.gz", label)
        pair = _support(dataset_dir)
        supports = {key: [value, str(file)] for (key, value), file in zip(pair.items(), other, strict=True)}
        _infer(trained, dataset_dir / "imagesTr" / "scan_2.nii.gz", dataset_dir, tmp_path / "out", **supports)
        assert [file.name for file in (tmp_path / "out").glob("[!.]*")] == ["scan_2_seg.nii.gz"]


class TestSpecification:
    def test_training_has_all_properties(self, at_root, dataset_dir, tmp_path):
        options = {"dataset_dir": str(dataset_dir), "max_epochs": 3}
        workflow = at_root(tmp_path).workflow("train", workflow_type="train", **options)
        assert workflow.check_properties() == []
        assert workflow.max_epochs == 3

    def test_inference_has_all_properties(self, trained, dataset_dir, tmp_path):
        workflow = trained.workflow(
            "inference",
            workflow_type="infer",
            dataset_dir=str(dataset_dir / "imagesTr"),
            checkpoint=str(trained.root / "models" / "fold0" / "model.pt"),
            output_dir=str(tmp_path),
            **_support(dataset_dir),
        )
        assert workflow.check_properties() == []

    def test_configurations_agree(self, configs):
        evaluate, inference = (json.loads((configs / f"{name}.json").read_text()) for name in ("evaluate", "inference"))
        for key in ("threshold", "keep_largest"):
            assert evaluate[key] == inference[key], key

    def test_network_takes_and_gives_what_the_metadata_say(self, trained, configs):
        verify_net_in_out(
            net_id="network_def",
            meta_file=str(configs / "metadata.json"),
            config_file=str(configs / "inference.json"),
            device="cpu",
            checkpoint=str(trained.root / "models" / "fold0" / "model.pt"),
            extra_forward_args={
                "support_image": torch.rand(1, 1, 1, 128, 128),
                "support_label": (torch.rand(1, 1, 1, 128, 128) > 0.5).float(),
            },
        )
