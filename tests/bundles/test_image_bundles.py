# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The bundles for 2D images, from their configuration files to masks, on phantoms."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from image_bundles import load, refusal, run, workflow
from PIL import Image

from monai_fewshot.networks.encoders import DilatedResNetEncoder, VGG16Encoder
from monai_fewshot.networks.nets import ALPNet

pytestmark = pytest.mark.default_dtype
SHORT = {"epoch_length": 2, "max_epochs": 2, "batch_size": 2, "num_val_episodes": 4}


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    """Defaults of the bundles lie in the working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def saliency(tmp_path_factory, lesions):
    folder = tmp_path_factory.mktemp("saliency")
    run("masksplit", "saliency", dataset_dir=lesions, output_dir=str(folder), rounds=1, steps=30)
    return folder


@pytest.fixture(scope="module")
def masksplit(tmp_path_factory, lesions, saliency):
    folder = tmp_path_factory.mktemp("masksplit")
    settings = {"dataset_dir": lesions, "masks_dir": str(saliency / "masks"), "ckpt_dir": str(folder)}
    run("masksplit", "train", **settings, **SHORT)
    return folder


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory, shapes, lesions):
    folder = tmp_path_factory.mktemp("surrogate")
    settings = {"dataset_dir": shapes, "unlabeled_dir": lesions, "ckpt_dir": str(folder), "num_unlabeled": 3}
    run("surrogate_fewshot", "train", **settings, **SHORT)
    return folder


def test_saliency_writes_masks_of_the_images_size(saliency, lesions):
    masks = sorted((saliency / "masks").iterdir())
    assert masks
    for mask in masks:
        pixels = np.asarray(Image.open(mask))
        with Image.open(Path(lesions) / "images" / f"{mask.stem}.jpg") as image:
            assert pixels.shape == (image.height, image.width)
        assert set(np.unique(pixels)) == {0, 255}
    assert (saliency / "round_1.pt").is_file()


@pytest.mark.parametrize("trained", ["masksplit", "surrogate"])
def test_training_leaves_checkpoints_that_say_what_made_them(trained, request):
    folder = request.getfixturevalue(trained)
    names = {file.name for file in folder.glob("*.pt")}
    assert names == {"checkpoint_epoch=1.pt", "checkpoint_epoch=2.pt", "model.pt"}
    made = load(folder / "model.pt")["provenance"]
    assert made["settings"]["iterations"] == 4
    assert len(made["data"]) == 64


def test_the_model_has_the_few_shot_network_alone(surrogate):
    model, whole = load(surrogate / "model.pt")["model"], load(surrogate / "checkpoint_epoch=2.pt")["model"]
    assert not any(name.startswith(("restore", "few_shot")) for name in model)
    assert any(name.startswith("restore.") for name in whole)
    for name, tensor in model.items():
        assert whole[f"few_shot.{name}"].shape == tensor.shape


@pytest.mark.parametrize("bundle", ["masksplit", "surrogate_fewshot"])
def test_a_resumed_training_ends_as_if_it_had_not_been_interrupted(bundle, tmp_path, lesions, shapes, saliency):
    data = {"dataset_dir": shapes, "unlabeled_dir": lesions, "num_unlabeled": 3}
    if bundle == "masksplit":
        data = {"dataset_dir": lesions, "masks_dir": str(saliency / "masks")}
    # The rate follows a cosine over all iterations, so both plans must have as many.
    rate = {"lr_scheduler#T_max": 4}
    run(bundle, "train", **data, **SHORT, **rate, ckpt_dir=str(tmp_path / "one"))
    run(bundle, "train", **data, **{**SHORT, "max_epochs": 1}, **rate, ckpt_dir=str(tmp_path / "two"))
    run(bundle, "train", **data, **SHORT, **rate, ckpt_dir=str(tmp_path / "two"), resume=True)
    one, two = (load(tmp_path / n / "checkpoint_epoch=2.pt")["model"] for n in ("one", "two"))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("bundle", "trained", "data"),
    [("masksplit", "masksplit", "lesions"), ("surrogate_fewshot", "surrogate", "shapes")],
)
class TestUse:
    def test_random_episodes(self, bundle, trained, data, request, tmp_path):
        checkpoint = request.getfixturevalue(trained) / "model.pt"
        settings = {"dataset_dir": request.getfixturevalue(data), "checkpoint": str(checkpoint), "hd95": False}
        run(bundle, "evaluate", **settings, runs=2, episodes_per_run=3, output_dir=str(tmp_path), batch_size=2)
        rows = list(csv.DictReader((tmp_path / "results.csv").open()))
        assert [row["fold"] for row in rows] == ["0"] * 3 + ["1"] * 3
        found = json.loads((tmp_path / "results.json").read_text())
        assert found["provenance"]["training"]["settings"]["iterations"] == 4
        assert "random_episodes" in (tmp_path / "report.html").read_text()

    def test_one_annotated_image(self, bundle, trained, data, request, tmp_path):
        checkpoint, folder = request.getfixturevalue(trained) / "model.pt", request.getfixturevalue("lesions")
        settings = {"dataset_dir": folder, "checkpoint": str(checkpoint), "support": "lesion_003"}
        run(bundle, "evaluate", "one_support", **settings, output_dir=str(tmp_path))
        rows = list(csv.DictReader((tmp_path / "results.csv").open()))
        assert sorted(row["scan"] for row in rows) == [f"lesion_{n:03}" for n in range(1, 11) if n != 3]
        wrong = {**settings, "support": "absent", "output_dir": str(tmp_path)}
        assert "There is no image called 'absent'" in refusal(bundle, "evaluate", "one_support", **wrong)

    def test_masks_of_a_folder(self, bundle, trained, data, request, tmp_path):
        folder = Path(request.getfixturevalue("lesions"))
        settings = {
            "dataset_dir": str(folder / "images"),
            "support_image": str(folder / "images" / "lesion_001.jpg"),
            "support_label": str(folder / "masks" / "lesion_001.png"),
            "checkpoint": str(request.getfixturevalue(trained) / "model.pt"),
            "output_dir": str(tmp_path),
        }
        run(bundle, "inference", **settings)
        masks = sorted(tmp_path.iterdir())
        assert [mask.name for mask in masks] == [f"lesion_{n:03}_seg.png" for n in range(1, 11)]
        for mask in masks:
            pixels = np.asarray(Image.open(mask))
            assert pixels.shape == (48, 64)
            assert set(np.unique(pixels)) <= {0, 255}
        masks[4].unlink()
        kept = masks[0].stat().st_mtime_ns
        run(bundle, "inference", **settings)
        assert masks[4].is_file()
        assert masks[0].stat().st_mtime_ns == kept


def test_few_shot_alone_and_alpnet_train_too(shapes, lesions, tmp_path):
    data = {"dataset_dir": shapes, "unlabeled_dir": lesions, "num_unlabeled": 3, **SHORT}
    run("surrogate_fewshot", "train", "few_shot", **data, ckpt_dir=str(tmp_path / "alone"))
    assert not any(name.startswith("restore") for name in load(tmp_path / "alone" / "checkpoint_epoch=2.pt")["model"])
    found = run("surrogate_fewshot", "train", "alpnet", **data, ckpt_dir=str(tmp_path / "alpnet"))
    assert isinstance(found.parser.get_parsed_content("network_def"), ALPNet)
    tasks = ("Inpainting", "LocalShuffling")
    for task in tasks:
        settings = {"task": {"_target_": f"monai_fewshot.transforms.{task}"}, "ckpt_dir": str(tmp_path / task)}
        run("surrogate_fewshot", "train", **data, **settings)
        assert load(tmp_path / task / "model.pt")["provenance"]["settings"]["task"] == task


def test_the_papers_settings(shapes, lesions, saliency, tmp_path):
    settings = {"dataset_dir": shapes, "unlabeled_dir": lesions, "initialize": [], "ckpt_dir": str(tmp_path)}
    found = workflow("surrogate_fewshot", "train", "paper", **settings).parser
    assert isinstance(found.get_parsed_content("encoder"), VGG16Encoder)
    assert found["max_epochs"] * found["epoch_length"] == 30_000
    assert found.get_parsed_content("optimizer").param_groups[0]["lr"] == 1e-4
    settings = {"dataset_dir": lesions, "masks_dir": str(saliency / "masks"), "initialize": []}
    found = workflow("masksplit", "train", "paper", **settings, **{"encoder#depth": 18}).parser
    assert isinstance(found.get_parsed_content("encoder"), DilatedResNetEncoder)
    assert found["batch_size"] == 16
    assert found.get_parsed_content("loss").background_weight == 1.0
    network = found.get_parsed_content("network_def")
    assert network.mix.in_channels == 2 * 3 * 128
    assert not network.encoder.frozen
    assert found.get_parsed_content("optimizer").param_groups[0]["weight_decay"] == 1e-5


def test_slices_of_scans_are_images_too(dataset_dir, scans, tmp_path):
    fold = {"dataset_dir": str(dataset_dir), "num_folds": 3, "fold": 0, "bundle_root": str(tmp_path)}
    run("masksplit", "train", "volumes", **fold, **SHORT)
    assert (tmp_path / "models" / "fold0" / "model.pt").is_file()
    run("masksplit", "evaluate", "evaluate_volumes", **fold)
    rows = list(csv.DictReader((tmp_path / "eval" / "results.csv").open()))
    assert {row["protocol"] for row in rows} == {"alpnet", "whole_volume"}
    assert {row["class_name"] for row in rows} == {"liver", "spleen"}
    support = {
        "support_image": str(dataset_dir / "imagesTr" / "scan_5.nii.gz"),
        "support_label": str(dataset_dir / "labelsTr" / "scan_5.nii.gz"),
    }
    settings = {"dataset_dir": str(dataset_dir / "imagesTr" / "scan_0.nii.gz"), "output_dir": str(tmp_path / "masks")}
    model = str(tmp_path / "models" / "fold0" / "model.pt")
    run("masksplit", "inference", "inference_volumes", **settings, **support, checkpoint=model)
    assert [file.name for file in (tmp_path / "masks").glob("[!.]*")] == ["scan_0_seg.nii.gz"]


def test_slices_of_scans_that_show_tested_classes_are_left_out(dataset_dir, tmp_path):
    options = {"dataset_dir": str(dataset_dir), "num_folds": 3, "fold": 0, "ckpt_dir": str(tmp_path)}
    found = workflow("masksplit", "train", "volumes", exclude_classes=["liver", "Spleen"], **options).parser
    everything = workflow("masksplit", "train", "volumes", **options).parser
    for part in (0, 1):
        left, all_slices = (parser.get_parsed_content("stacks")[part].image for parser in (found, everything))
        ends = [n for n in range(len(all_slices)) if n % 6 in (0, 5)]
        assert torch.equal(left, all_slices[ends]), "of six slices the first and the last show no organ"
    assert found.get_parsed_content("provenance").settings["exclude_classes"] == ["liver", "Spleen"]


def test_bad_input_ends_before_training(tmp_path, lesions, shapes, saliency):
    Image.new("L", (48, 48)).save(tmp_path / "gray.jpg")
    gray = refusal("masksplit", "saliency", dataset_dir=str(tmp_path), output_dir=str(tmp_path / "out"))
    assert f"{tmp_path / 'gray.jpg'}: is a gray image; expected colors" in gray
    masks = {"dataset_dir": lesions, "masks_dir": str(tmp_path), "ckpt_dir": str(tmp_path / "c")}
    assert "has a mask for none of the 10 images, such as lesion_001.png" in refusal("masksplit", "train", **masks)
    settings = {"dataset_dir": shapes, "unlabeled_dir": lesions, "ckpt_dir": str(tmp_path / "d"), "shots": 5}
    few = refusal("surrogate_fewshot", "train", **settings)
    assert "5-shot episodes need 6 annotated images of a class; " in few


@pytest.mark.parametrize(("bundle", "trained"), [("masksplit", "masksplit"), ("surrogate_fewshot", "surrogate")])
@pytest.mark.parametrize("name", ["train", "evaluate", "inference"])
def test_the_required_properties_are_there(bundle, trained, name, lesions, shapes, saliency, request):
    data = {"dataset_dir": shapes, "unlabeled_dir": lesions}
    if bundle == "masksplit":
        data = {"dataset_dir": lesions, "masks_dir": str(saliency / "masks")}
    if name != "train":
        checkpoint = str(request.getfixturevalue(trained) / "model.pt")
        data = {"dataset_dir": lesions, "checkpoint": checkpoint}
    if name == "inference":
        data["support_image"], data["support_label"] = (
            f"{lesions}/images/lesion_001.jpg",
            f"{lesions}/masks/lesion_001.png",
        )
    found = workflow(bundle, name, **data, initialize=[])
    if name != "evaluate":
        assert not found.check_properties()
