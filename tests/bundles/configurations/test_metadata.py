# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import inspect
import json
import re
from configparser import ConfigParser
from pathlib import Path

import pytest
import torch
from monai.bundle import verify_metadata, verify_net_in_out

import monai_fewshot
from monai_fewshot.apps.bundles import LearnsFrom, WorksOn, bundle_names, read_method, read_methods
from monai_fewshot.inferers import RegistrationInferer

ROOT = Path(__file__).parents[3]
FEW_SHOT = ("ssl_alpnet", "panet", "adnet", "se_net", "surrogate_fewshot", "masksplit", "meta_learning")
NETWORKS = (*FEW_SHOT, "elsnet", "self_training", "supervised")
BUNDLES = (*NETWORKS, "registration")
METHODS = [method.name for name in BUNDLES for method in read_methods(ROOT / "bundles" / name).values()]

TEXT, OBJECT, LIST_OF_TEXT = {"type": "string"}, {"type": "object"}, {"type": "array", "items": {"type": "string"}}
REQUIRED = {
    **dict.fromkeys(
        ["schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description"], TEXT
    ),
    **dict.fromkeys(["authors", "copyright"], TEXT),
    "required_packages_version": OBJECT,
}
OPTIONAL = {
    **dict.fromkeys(["data_source", "data_type", "image_classes", "label_classes", "pred_classes"], TEXT),
    **dict.fromkeys(["name", "intended_use"], TEXT),
    **dict.fromkeys(["changelog", "eval_metrics", "supported_apps"], OBJECT),
    "references": LIST_OF_TEXT,
}
TENSOR_REQUIRED = {
    **dict.fromkeys(["type", "format", "dtype"], TEXT),
    "num_channels": {"type": "integer"},
    "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
    "value_range": {"type": "array", "items": {"type": "number"}},
}
TENSOR_OPTIONAL = {"modality": TEXT, "is_patch_data": {"type": "boolean"}, "channel_def": OBJECT}


def schema() -> dict:
    """Write down what the bundle specification asks for; stricter, in that what it leaves open must be there too."""
    tensor = {
        "type": "object",
        "properties": {**TENSOR_REQUIRED, **TENSOR_OPTIONAL},
        "required": [*TENSOR_REQUIRED, "channel_def"],
    }
    tensors = {"type": "object", "additionalProperties": tensor, "minProperties": 1}
    return {
        "type": "object",
        "properties": {
            **REQUIRED,
            **OPTIONAL,
            "network_data_format": {
                "type": "object",
                "properties": {"inputs": tensors, "outputs": tensors, "post_processed_outputs": tensors},
                "required": ["inputs", "outputs"],
            },
            "method": OBJECT,
        },
        "required": [*REQUIRED, *OPTIONAL, "network_data_format", "method"],
        "additionalProperties": False,
    }


@pytest.fixture(params=BUNDLES)
def configs(request) -> Path:
    return ROOT / "bundles" / request.param / "configs"


@pytest.fixture
def metadata(configs) -> dict:
    return json.loads((configs / "metadata.json").read_text())


@pytest.fixture
def schema_file(tmp_path: Path) -> Path:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema()))
    return path


def test_fields_and_types_are_those_of_the_specification(configs, schema_file):
    verify_metadata(meta_file=str(configs / "metadata.json"), filepath=str(schema_file))


@pytest.mark.parametrize("configs", BUNDLES[:1], indirect=True)
@pytest.mark.parametrize("field", [*REQUIRED, "network_data_format"])
def test_an_absent_field_is_found(field, metadata, schema_file, tmp_path):
    """In one bundle, for all are held against the same schema."""
    del metadata[field]
    broken = tmp_path / "metadata.json"
    broken.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=field):
        verify_metadata(meta_file=str(broken), filepath=str(schema_file))


def test_the_schema_is_the_newest(metadata):
    assert metadata["schema"].endswith("/meta_schema_20240725.json")


def test_versions_are_those_tested(metadata):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(
        re.match(r"([\w.-]+)==([\w.]+)", line).groups()
        for line in lines
        if "python_version <" not in line and "==" in line and line[0] != "#"
    )
    assert metadata["version"] == monai_fewshot.__version__
    assert metadata["version"] in metadata["changelog"]
    assert metadata["monai_version"] == pins["monai"]
    assert metadata["pytorch_version"] == pins["torch"]
    assert metadata["numpy_version"] == pins["numpy"]
    packages = metadata["required_packages_version"]
    assert packages.pop("monai_fewshot") == monai_fewshot.__version__
    assert packages == {name: pins[name] for name in packages}


def test_no_bundle_is_left_out():
    assert sorted(BUNDLES) == bundle_names()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_what_its_configs_say(name):
    method = read_method(name)
    configs = {
        step: {
            key: value
            for config in names
            for key, value in json.loads((method.bundle / "configs" / f"{config}.json").read_text()).items()
        }
        for step, names in method.steps.items()
    }
    assert list(configs)[-2:] == ["evaluate", "inference"]
    assert all("run" in config for config in configs.values())
    train, on_scans = configs.get("train", {}), method.works_on != WorksOn.IMAGES
    assert bool(train) == (method.learns_from != LearnsFrom.NOTHING)
    assert ("fold" in configs["evaluate"]) == on_scans
    if on_scans and train:
        assert ("classes" in train) == (method.learns_from != LearnsFrom.IMAGES)
        hides = (LearnsFrom.IMAGES, LearnsFrom.OTHER_CLASSES)
        assert ("exclude_classes" in train) == (method.learns_from in hides)


def test_extras_are_those_that_bring_the_required_packages(configs, metadata):
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    packages = {
        extra: set(re.findall(r"^[\w-]+", text, re.M)) for extra, text in config["options.extras_require"].items()
    }
    always = set(re.findall(r"^[\w-]+", config["options"]["install_requires"], re.M)) | {"monai_fewshot"}
    extras = read_methods(configs.parent)[""].extras
    brought = set().union(*(packages[extra] for extra in extras))
    assert metadata["required_packages_version"].keys() - always == brought


@pytest.mark.parametrize("configs", NETWORKS, indirect=True)
def test_inputs_are_the_arguments_of_the_network(configs, metadata):
    support = ["support_image", "support_label"] if configs.parent.name in FEW_SHOT else []
    assert list(metadata["network_data_format"]["inputs"]) == ["image", *support]


@pytest.mark.parametrize("configs", ["registration"], indirect=True)
def test_inputs_are_the_arguments_of_the_inferer_that_needs_no_network(configs, metadata):
    arguments = inspect.signature(RegistrationInferer.__call__).parameters
    supports = [name for name in arguments if name.startswith("support_")]
    assert list(metadata["network_data_format"]["inputs"]) == ["image", *supports]


@pytest.mark.parametrize("configs", NETWORKS, indirect=True)
def test_the_network_takes_and_gives_what_is_described(configs, metadata, monkeypatch):
    monkeypatch.chdir(configs.parent)
    support = {
        name: torch.zeros(1, 1, described["num_channels"], *described["spatial_shape"])
        for name, described in metadata["network_data_format"]["inputs"].items()
        if name != "image"
    }
    if support:
        support["support_label"][..., 32:96, 32:96] = 1
    data = metadata["network_data_format"]
    counts = {
        "num_classes": data["outputs"]["pred"]["num_channels"] - 1,
        "channels": data["inputs"]["image"]["num_channels"],
    }
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "train.json"),
        device="cpu",
        extra_forward_args=support,
        **({} if support else counts),
    )
