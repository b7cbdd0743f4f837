# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The meta-learning bundle, from its configuration files to masks, on phantoms."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from image_bundles import BUNDLES, SMALL, load, refusal, run, workflow
from PIL import Image
from process_groups import run_bundle
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_fewshot.apps.phantom import make_phantom_shapes

BUNDLE = "meta_learning"
SHORT = {
    "epoch_length": 2,
    "max_epochs": 2,
    "batch_size": 2,
    "num_val_tasks": 2,
    "shots": 2,
    "queries": 2,
    "inner_steps": 2,
    "val_share": 0.4,
    "handlers#log_interval": 1,
}


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    """Defaults of the bundle lie in the working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, lesions):
    folder = tmp_path_factory.mktemp("trained")
    run(BUNDLE, "train", dataset_dir=lesions, ckpt_dir=str(folder), **SHORT)
    return folder


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    return str(make_phantom_shapes(tmp_path_factory.mktemp("pools"), 4, 10, 48))


def test_a_checkpoint_says_what_made_it(trained):
    checkpoint = load(trained / "model.pt")
    settings = checkpoint["provenance"]["settings"]
    assert settings["meta_gradient"] == "ImplicitMAML"
    assert settings["iterations"] == 4
    inner = checkpoint["settings"]["network"]["inner"]
    assert inner == {
        "_target_": "monai_fewshot.meta.InnerLoop",
        "steps": 2,
        "lr": 0.1,
        "optimizer": "sgd",
        "proximal": 2.0,
    }


def test_curves_show_the_loss_before_and_after_adaptation(trained):
    events = EventAccumulator(str(trained / "logs"))
    events.Reload()
    for name in ("support_loss", "skipped"):
        assert len(events.Scalars(name)) == 4
    assert {event.value for event in events.Scalars("skipped")} == {0}


@pytest.mark.parametrize(
    ("method", "named", "proximal"),
    [("maml", "MAML", 0.0), ("first_order", "MAML", 0.0), ("reptile", "Reptile", 0.0), ("supervised", "MAML", 0.0)],
)
def test_every_method_is_one_override_away(method, named, proximal, pools, tmp_path):
    found = run(BUNDLE, "train", method, dataset_dir=pools, ckpt_dir=str(tmp_path), **SHORT).parser
    meta_gradient = found.get_parsed_content("meta_gradient")
    assert type(meta_gradient).__name__ == named
    assert meta_gradient.inner.proximal == proximal
    assert getattr(meta_gradient, "first_order", False) == (method in ("first_order", "supervised"))
    assert (meta_gradient.inner.steps == 0) == (method == "supervised")
    start, end = load(tmp_path / "checkpoint_epoch=1.pt")["model"], load(tmp_path / "checkpoint_epoch=2.pt")["model"]
    assert any(not torch.equal(start[name], end[name]) for name in start)


@pytest.mark.parametrize("method", [(), ("maml",)])
def test_a_resumed_training_ends_as_if_it_had_not_been_interrupted(method, pools, tmp_path):
    # The rate follows a cosine over all iterations, so both plans must have as many.
    settings = {"dataset_dir": pools, **SHORT, "lr_scheduler#T_max": 4, "learn_rates": bool(method)}
    run(BUNDLE, "train", *method, **settings, ckpt_dir=str(tmp_path / "one"))
    run(BUNDLE, "train", *method, **{**settings, "max_epochs": 1}, ckpt_dir=str(tmp_path / "two"))
    run(BUNDLE, "train", *method, **settings, ckpt_dir=str(tmp_path / "two"), resume=True)
    one, two = (load(tmp_path / n / "checkpoint_epoch=2.pt") for n in ("one", "two"))
    assert all(torch.equal(tensor, two["model"][name]) for name, tensor in one["model"].items())
    assert one["convergence"] == two["convergence"]
    assert len(one["convergence"]["history"]) == 2


def test_weights_of_one_training_start_another(trained, lesions, tmp_path):
    model = load(trained / "model.pt")["model"]
    settings = {"dataset_dir": lesions, "ckpt_dir": str(tmp_path), **SHORT, "weights": str(trained / "model.pt")}
    found = workflow(BUNDLE, "train", **settings).parser.get_parsed_content("network_def")
    assert all(torch.equal(tensor, model[name]) for name, tensor in found.state_dict().items())


@pytest.mark.parametrize("steps", [0, 3])
def test_all_but_the_annotated_images_are_segmented(steps, trained, lesions, tmp_path):
    settings = {"dataset_dir": lesions, "checkpoint": str(trained / "model.pt"), "shots": 4, "runs": 2}
    run(BUNDLE, "evaluate", **settings, inner_steps=steps, output_dir=str(tmp_path))
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [row["fold"] for row in rows] == ["0"] * 6 + ["1"] * 6
    assert len({row["scan"] for row in rows[:6]}) == 6
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["provenance"]["settings"]["inner"]["steps"] == steps
    assert found["provenance"]["training"]["0"]["settings"]["meta_gradient"] == "ImplicitMAML"


def test_adaptation_makes_better_masks(trained, lesions, tmp_path):
    dice = {}
    for steps in (0, 40):
        settings = {"dataset_dir": lesions, "checkpoint": str(trained / "model.pt"), "runs": 1, "inner_lr": 0.03}
        settings |= {"inner_steps": steps, "inner_optimizer": "adam", "output_dir": str(tmp_path / str(steps))}
        run(BUNDLE, "evaluate", **settings)
        summary = json.loads((tmp_path / str(steps) / "results.json").read_text())["summary"]
        dice[steps] = next(row["dice"] for row in summary if row["fold"] is None and row["class_number"] is None)
    assert dice[40] > dice[0] + 0.2


def test_masks_of_a_folder_after_two_annotated_images(trained, lesions, tmp_path):
    folder = Path(lesions)
    names = ("lesion_001", "lesion_002")
    settings = {
        "dataset_dir": str(folder / "images"),
        "support_image": [str(folder / "images" / f"{name}.jpg") for name in names],
        "support_label": [str(folder / "masks" / f"{name}.png") for name in names],
        "checkpoint": str(trained / "model.pt"),
        "output_dir": str(tmp_path),
    }
    run(BUNDLE, "inference", **settings)
    masks = sorted(tmp_path.iterdir())
    assert [mask.name for mask in masks] == [f"lesion_{n:03}_seg.png" for n in range(1, 11)]
    assert all(np.asarray(Image.open(mask)).shape == (48, 64) for mask in masks)


def test_classes_of_scans_are_pools_too(dataset_dir, tmp_path):
    fold = {"dataset_dir": str(dataset_dir), "num_folds": 3, "fold": 0, "bundle_root": str(tmp_path)}
    settings = {**SHORT, "shots": 1, "queries": 1, "num_val_scans": 0}
    run(BUNDLE, "train", "first_order", "volumes", **fold, **settings)
    assert load(tmp_path / "models" / "fold0" / "model.pt")["provenance"]["settings"]["pools"] == ["liver", "spleen"]
    run(BUNDLE, "evaluate", "evaluate_volumes", **fold, shots=3)
    rows = list(csv.DictReader((tmp_path / "eval" / "results.csv").open()))
    assert {row["protocol"] for row in rows} == {"within_the_class", "whole_volume"}
    assert {row["class_name"] for row in rows} == {"liver", "spleen"}
    support = {
        "support_image": str(dataset_dir / "imagesTr" / "scan_5.nii.gz"),
        "support_label": str(dataset_dir / "labelsTr" / "scan_5.nii.gz"),
        "checkpoint": str(tmp_path / "models" / "fold0" / "model.pt"),
    }
    scan = {"dataset_dir": str(dataset_dir / "imagesTr" / "scan_0.nii.gz"), "output_dir": str(tmp_path / "masks")}
    run(BUNDLE, "inference", "inference_volumes", **scan, **support)
    assert [file.name for file in (tmp_path / "masks").glob("[!.]*")] == ["scan_0_seg.nii.gz"]


def test_slices_of_scans_that_show_tested_classes_are_left_out(dataset_dir, tmp_path):
    options = {"dataset_dir": str(dataset_dir), "num_folds": 6, "fold": 0, "ckpt_dir": str(tmp_path)}
    settings = {**options, "shots": 1, "queries": 1, "num_val_scans": 2}
    names = (BUNDLE, "train", "first_order", "volumes")
    found, everything = (workflow(*names, exclude_classes=c, **settings).parser for c in (["spleen"], []))
    assert (found.get_parsed_content("pools"), everything.get_parsed_content("pools")) == ([1], [1, 2])
    for part in (0, 1):
        left, all_slices = (parser.get_parsed_content("stacks")[part].image for parser in (found, everything))
        ends = [n for n in range(len(all_slices)) if n % 6 in (0, 5)]
        assert torch.equal(left, all_slices[ends]), "livers show beside spleens alone"


def test_the_papers_settings_and_set_ups(pools, lesions, tmp_path):
    for name, composition in (("exclusive", "exclusive"), ("mixed", "mixed"), ("same_class", "mixed")):
        folders = {"ph2_dir": lesions, "kvasir_dir" if name != "same_class" else "isic_dir": pools}
        settings = {"initialize": [], "ckpt_dir": str(tmp_path), "base#channels": [4, 8], "base#strides": [2]}
        found = workflow(BUNDLE, "train", "paper", name, **folders, **settings).parser
        assert found.get_parsed_content("inner").proximal == 100
        optimizer = found.get_parsed_content("optimizer").param_groups[0]
        assert (optimizer["lr"], optimizer["weight_decay"]) == (1e-5, 5e-4)
        names = list(found.get_parsed_content("image_set").class_names.values())
        assert names[0] == f"{Path(lesions).name}/foreground"
        assert len(names) == 5
        assert found["composition"] == composition


def test_bad_input_ends_before_training(trained, lesions, tmp_path):
    settings = {"dataset_dir": lesions, "ckpt_dir": str(tmp_path / "a"), **SHORT}
    few = refusal(BUNDLE, "train", **{**settings, "shots": 5})
    assert "5-shot episodes of 2 queries need 7 annotated images of a class; foreground has 5" in few
    unstable = refusal(BUNDLE, "train", **{**settings, "inner_lr": 1.0})
    assert "their product must be below 2. Take an lr below 1, or Adam" in unstable
    assert "ImplicitMAML needs an inner loop with a proximal term" in refusal(
        BUNDLE, "train", **{**settings, "proximal": 0.0}
    )
    use = {"dataset_dir": lesions, "checkpoint": str(trained / "model.pt"), "output_dir": str(tmp_path / "b")}
    many = {**use, "shots": 10}
    assert "10 annotated images of 10 are asked for" in refusal(BUNDLE, "evaluate", **many)
    blank = tmp_path / "blank.png"
    Image.new("L", (64, 48)).save(blank)
    image = str(Path(lesions) / "images" / "lesion_001.jpg")
    assert "blank.png" in refusal(BUNDLE, "inference", **use, support_image=image, support_label=str(blank))


def test_a_diverging_adaptation_ends_with_a_diagnosis(pools, tmp_path):
    settings = {"dataset_dir": pools, "ckpt_dir": str(tmp_path), **SHORT, "epoch_length": 12, "inner_lr": 1e30}
    assert "steps of sgd with lr 1e+30 are too long. Take a lower lr" in refusal(BUNDLE, "train", "maml", **settings)


@pytest.mark.slow
def test_two_processes_learn_the_weights_of_one(pools, tmp_path):
    configs = BUNDLES / BUNDLE / "configs"
    # Adam would blow up the rounding of gradients that are nearly 0.
    options = {"dataset_dir": pools, **SHORT, "optimizer#_target_": "torch.optim.SGD", "lr": 0.1}
    run(BUNDLE, "train", **options, ckpt_dir=str(tmp_path / "1"))
    options |= {"image_size": [32, 32], **SMALL[BUNDLE], "ckpt_dir": tmp_path / "2"}
    _, errors = run_bundle(configs, "train", 2, options, tmp_path / "told")
    assert errors == [None, None], errors
    one, two = (load(tmp_path / str(processes) / "checkpoint_epoch=2.pt")["model"] for processes in (1, 2))
    start = load(tmp_path / "1" / "checkpoint_epoch=1.pt")["model"]
    assert any((tensor - start[name]).abs().max() > 1e-3 for name, tensor in one.items())
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["train", "evaluate", "inference"])
def test_the_required_properties_are_there(name, trained, lesions):
    checkpoint = {"checkpoint": str(trained / "model.pt")}
    support = {"support_image": lesions + "/images/lesion_001.jpg", "support_label": lesions + "/masks/lesion_001.png"}
    settings = {"train": SHORT, "evaluate": checkpoint, "inference": checkpoint | support}[name]
    found = workflow(BUNDLE, name, dataset_dir=lesions, **settings, initialize=[])
    if name != "evaluate":
        assert not found.check_properties()
