# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ComponentLocator, ConfigWorkflow

from monai_fewshot.workflows.setting_kinds import SETTING_KINDS, read_setting

BUNDLES = Path(__file__).parents[2] / "bundles"
CHECK = "$monai_fewshot.workflows.check_settings()"
METADATA = "metadata.json"
PARTS = {"imports", "initialize", "run", "finalize"}


LOCATOR = ComponentLocator()


@pytest.fixture(autouse=True)
def _one_table_of_components(monkeypatch):
    """Looking through all modules takes a second."""
    monkeypatch.setattr("monai.bundle.config_parser.ComponentLocator", lambda excludes: LOCATOR)


def _root_text(error):
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def _checked(bundle, *configs, **settings):
    """Parser of a configuration of which nothing but the check has run."""
    files = [str(BUNDLES / bundle / "configs" / f"{name}.json") if "/" not in str(name) else name for name in configs]
    workflow = ConfigWorkflow(files, logging_file=False, **{"initialize": [CHECK], **settings})
    workflow.initialize()
    return workflow.parser


def _refused(bundle, *configs, **settings):
    with pytest.raises(RuntimeError) as caught:
        _checked(bundle, *configs, **settings)
    return _root_text(caught.value)


def _configs():
    return [path for path in sorted(BUNDLES.glob("*/configs/*.json")) if path.name != METADATA]


@pytest.mark.parametrize("file", [file for file in _configs() if "run" in json.loads(file.read_text())], ids=str)
def test_bundles_refuse_unknown_settings_first(file):
    text = _refused(
        file.parents[1].name, file.stem, initialize=json.loads(file.read_text())["initialize"], dataset_dit="/no"
    )
    assert text == "There is no setting --dataset_dit; did you mean dataset_dir?"


def test_every_initialize_begins_with_the_check():
    lists = [content["initialize"] for file in _configs() if "initialize" in (content := json.loads(file.read_text()))]
    assert {expressions[0] for expressions in lists} == {CHECK}


@pytest.mark.parametrize(
    ("bundle", "step", "variant"),
    [
        ("adnet", "train", "paper"),
        ("adnet", "evaluate", "paper"),
        ("elsnet", "train", "paper"),
        ("masksplit", "train", "paper"),
        ("masksplit", "train", "volumes"),
        ("masksplit", "evaluate", "one_support"),
        ("masksplit", "evaluate", "evaluate_volumes"),
        ("masksplit", "inference", "inference_volumes"),
        ("meta_learning", "train", "reptile"),
        ("meta_learning", "train", "volumes"),
        ("panet", "train", "annotated"),
        ("panet", "train", "resnet"),
        ("se_net", "train", "paper"),
        ("ssl_alpnet", "train", "annotated"),
        ("ssl_alpnet", "inference", "paper"),
        ("supervised", "train", "all_scans"),
        ("surrogate_fewshot", "train", "few_shot"),
    ],
)
def test_variants_of_the_bundles_pass(bundle, step, variant):
    _checked(bundle, step, variant)


def test_plain_settings_of_the_bundles_have_a_kind():
    plain = {
        name
        for file in _configs()
        for name, value in json.loads(file.read_text()).items()
        if "#" not in name and (not isinstance(value, (dict, str, list)) or name.endswith("_dir"))
    }
    others = {"class_names", "preparation", "augmentation", "normalize"}
    assert plain - others - PARTS <= set(SETTING_KINDS)


def test_unknown_settings_on_every_level():
    unknown = {
        "weights": "a.pth",
        "threshold": 0.5,
        "augment_suport": False,
        "noresume": True,
        "encoder#in_chanels": 3,
        "loss#background_wight": 3,
        "train#max_epoch": 3,
        "train#trainer#max_epoch": 3,
    }
    assert set(_refused("ssl_alpnet", "train", **unknown).splitlines()) == {
        "There is no setting --weights; paper.json would have it.",
        "There is no setting --threshold; evaluate.json, inference.json, paper.json would have it.",
        "There is no setting --augment_suport; did you mean augment_support?",
        "There is no setting --noresume; did you mean resume?",
        "There is no setting --encoder#in_chanels; did you mean in_channels?",
        "There is no setting --loss#background_wight; did you mean background_weight?",
        "There is no setting --train#max_epoch; there are: dataset, inferer, preprocessing, trainer.",
        "There is no setting --train#trainer#max_epoch; did you mean max_epochs?",
    }


def test_settings_of_a_variant_that_is_read():
    assert _checked("ssl_alpnet", "train", "paper", weights="a.pth")["weights"] == "a.pth"


def test_own_settings_that_an_expression_uses(tmp_path):
    own = {"speed": 2, "my": {"rate": "$0.001 * @speed"}, "optimizer#lr": "$@my#rate", "_note": "tried in May"}
    file = tmp_path / "own.json"
    file.write_text(json.dumps(own))
    parser = _checked("ssl_alpnet", "train", str(file))
    assert parser.get_parsed_content("my#rate") == 0.002


def test_own_settings_that_nothing_uses(tmp_path):
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"max_epoch": 3}))
    assert _refused("ssl_alpnet", "train", str(file)) == "There is no setting --max_epoch; did you mean max_epochs?"


def test_values_that_are_understood():
    given = {
        "image_size": 64,
        "dtype": "float32",
        "dataset_dir": 2024,
        "cache_dir": "/data/study #1 @ home/{a}",
        "ckpt_dir": "~/models",
        "resume": "true",
        "augment_support": "False",
        "fold": "null",
        "compile": "None",
        "exclude_classes": "liver",
    }
    understood = {
        "image_size": [64, 64],
        "dtype": torch.float32,
        "dataset_dir": "2024",
        "cache_dir": "/data/study #1 @ home/{a}",
        "ckpt_dir": str(Path.home() / "models"),
        "resume": True,
        "augment_support": False,
        "fold": None,
        "compile": None,
        "exclude_classes": ["liver"],
    }
    parser = _checked("ssl_alpnet", "train", **given)
    assert {name: parser.get_parsed_content(name) for name in given} == understood


@pytest.mark.parametrize(
    ("name", "given", "understood"),
    [
        ("image_size", (64, 48), [64, 48]),
        ("dtype", "torch.bfloat16", "$torch.bfloat16"),
        ("dataset_dir", Path("/data/a#1"), "/data/a#1"),
        ("dataset_dir", "./@data", "./@data"),
        ("device", torch.device("cpu"), torch.device("cpu")),
        ("dataset_dir", "./2024.10", "./2024.10"),
        ("exclude_classes", 3, [3]),
        ("annotated_slices", "labeled", "labeled"),
        ("annotated_slices", ((0, 2), [5]), [[0, 2], [5]]),
        ("annotated_slices", [None, [3], "labeled", 5], [None, [3], "labeled", 5]),
        ("start_from", "None", None),
        ("fold", (0, 2), [0, 2]),
        ("seed_labels", "None", None),
        ("minutes", 2, 2),
    ],
)
def test_values_of_settings(name, given, understood):
    assert read_setting(name, given) == understood


def test_values_of_another_kind():
    wrong = {
        "image_size": ("64x64", 'give height and width in pixels, or None, such as --image_size "[128,128]".'),
        "fold": ([0, 1], "give one whole number from 0, or None, such as --fold 0."),
        "dtype": (16, "give float32 or bfloat16, such as --dtype float32."),
        "device": (0, "give cpu, cuda or cuda:N, such as --device cpu."),
        "max_epochs": (1.5, "give a whole number from 1, such as --max_epochs 4."),
        "epoch_length": (None, "give a whole number from 1, such as --epoch_length 4."),
        "batch_size": ("four", "give a whole number from 1, such as --batch_size 4."),
        "resume": (1, "give True or False, such as --resume True."),
        "dataset_dir": (2024.1, "give a path or a list of paths, such as --dataset_dir ./2024.10."),
        "exclude_classes": (0.5, "give names or numbers of classes, such as --exclude_classes \"['liver','spleen']\"."),
    }
    text = _refused("ssl_alpnet", "train", **{name: value for name, (value, _) in wrong.items()})
    assert set(text.splitlines()) == {f"--{name} is {value!r}: {told}" for name, (value, told) in wrong.items()}


@pytest.mark.parametrize("fold", [0.0, True, "0", -1, [0.5]])
def test_folds_of_another_kind(fold):
    for in_training in (True, False):
        with pytest.raises(ValueError, match=r"^--fold is .* such as --fold 0\.$"):
            read_setting("fold", fold, in_training)


def test_names_that_are_taken_for_expressions():
    names = {"dataset_dir": "$HOME/data", "ckpt_dir": "$my data", "cache_dir": "@scans_2024"}
    assert set(_refused("ssl_alpnet", "train", **names).splitlines()) == {
        "--dataset_dir is '$HOME/data', an expression in which HOME is not known; for a name that begins with $, write "
        "./$HOME/data.",
        "--ckpt_dir is '$my data', which is no expression; for a name that begins with $, write ./$my data.",
        "--cache_dir is '@scans_2024', and there is no setting scans_2024 that it could refer to; for a name that "
        "begins with @, write ./@scans_2024.",
    }


def test_a_device_that_is_not_here():
    assert _refused("ssl_alpnet", "train", device="gpu").startswith("--device is 'gpu', which is not here.")


def test_evaluation_takes_several_folds():
    assert _checked("ssl_alpnet", "evaluate", fold=[0, 2], classes=("liver", 2))["fold"] == [0, 2]


def test_lists_of_paths_with_number_signs():
    parser = _checked("ssl_alpnet", "inference", support_image=["a#1.nii.gz", "b.nii.gz"], description=2024)
    assert parser.get_parsed_content("support_image") == ["a#1.nii.gz", "b.nii.gz"]
    assert parser.get_parsed_content("description") == "2024"


def test_outside_of_a_bundle_nothing_is_checked():
    from monai_fewshot.workflows import check_settings

    check_settings()
