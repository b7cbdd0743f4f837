# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What the configurations of all bundles keep to."""

from __future__ import annotations

import json
import re

import pytest
from image_bundles import BUNDLES

FILES = sorted(BUNDLES.glob("*/configs/*.json"))
RUNNING = [file for file in FILES if "initialize" in json.loads(file.read_text())]
LONGEST = {"inference": 90, "train": 180}


def name(file):
    return f"{file.parts[-3]}-{file.stem}"


def items(content):
    """All keys of a configuration with their values, at any depth."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield str(key), value
        if isinstance(value, (dict, list)):
            yield from items(value)


@pytest.mark.parametrize("kind", LONGEST)
def test_they_are_short(kind):
    files = [file for file in FILES if file.stem == kind]
    assert len(files) >= len(list(BUNDLES.iterdir())) - 1
    lengths = {name(file): len(file.read_text().splitlines()) for file in files}
    assert {file: lines for file, lines in lengths.items() if lines > LONGEST[kind]} == {}


@pytest.mark.parametrize("file", FILES, ids=name)
def test_nothing_is_changed_by_its_place_in_a_list(file):
    keys = [key for key, _ in items(json.loads(file.read_text()))]
    assert [key for key in keys if re.search(r"(#|::)\d+(#|::|$)", key)] == []


@pytest.mark.parametrize("file", [file for file in FILES if file.stem.startswith(("evaluate", "inference"))], ids=name)
def test_what_is_trained_is_used_as_the_checkpoint_says(file):
    content = json.loads(file.read_text())
    assert {"encoder", "base", "preprocessing", "intensity", "transform"}.isdisjoint(content)
    assert content.get("network_def", "$@model.network") == "$@model.network"
    targets = [value for key, value in items(content) if key == "_target_"]
    assert [target for target in targets if re.search(r"\.(networks|transforms)\.|Preparation$|define$", target)] == []


@pytest.mark.parametrize("file", RUNNING, ids=name)
def test_a_run_checks_settings_first_and_leaves_its_processes_last(file):
    content = json.loads(file.read_text())
    first, second = content["initialize"][:2]
    assert first == "$monai_fewshot.workflows.check_settings()"
    if file.stem.startswith("inference"):
        steps = [*content["initialize"][1:], *content["run"]]
        together = ["$monai_fewshot.utils.start_process_group()", "$monai_fewshot.utils.end_process_group()"]
        of_folder = content["segmentation"]["_target_"].endswith(".FolderSegmentation")
        assert [step for step in steps if step in together] == (together if of_folder else [])
        assert [step for step in steps if step not in together] == ["$@segmentation.check()", "$@segmentation.run()"]
        return
    assert second.startswith("$monai_fewshot.workflows.start_run(@device, @seed, ")
    if file.stem in ("train", "evaluate"):
        assert content["finalize"] == ["$monai_fewshot.utils.end_process_group()"]


@pytest.mark.parametrize("bundle", sorted(folder.name for folder in BUNDLES.iterdir()))
def test_every_bundle_has_the_same_files(bundle):
    configs = {file.name for file in (BUNDLES / bundle / "configs").iterdir()}
    wanted = {"evaluate.json", "inference.json", "logging.conf", "metadata.json"}
    assert wanted | ({"train.json"} if bundle != "registration" else set()) <= configs
    assert (BUNDLES / bundle / "docs" / "README.md").is_file()
    assert (BUNDLES / bundle / "LICENSE").is_file()
