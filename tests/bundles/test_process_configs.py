# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What the configurations for several processes have in common."""

from __future__ import annotations

import json

import pytest
from image_bundles import BUNDLES
from monai.bundle import ConfigWorkflow

UTILS = "$monai_fewshot.utils"
IN_PROCESSES = sorted(file.parents[1].name for file in BUNDLES.glob("*/configs/multi_gpu_train.json"))


def content(bundle, name):
    return json.loads((BUNDLES / bundle / "configs" / f"{name}.json").read_text())


@pytest.mark.parametrize("name", ["train", "evaluate"])
@pytest.mark.parametrize("bundle", IN_PROCESSES)
def test_all_start_end_and_check_alike(bundle, name):
    plain, override = content(bundle, name), content(bundle, f"multi_gpu_{name}")
    assert override["device"] == f"{UTILS}.process_device()"
    assert override["finalize"] == [f"{UTILS}.end_process_group()"]
    start, device, *others = override["initialize"]
    assert start == f"{UTILS}.start_process_group()"
    settings = plain["initialize"][0].removeprefix(f"{UTILS}.check_device_settings(")
    assert device == f"{UTILS}.run_together(monai_fewshot.utils.check_device_settings, {settings}"
    checks = [line for line in others if "check_" in line]
    assert checks
    assert all(line.startswith((f"{UTILS}.run_together(", f"{UTILS}.run_in_first(")) for line in checks)


@pytest.mark.parametrize("bundle", IN_PROCESSES)
def test_checkpoints_are_handled_in_all_processes(bundle):
    plain, override = content(bundle, "train"), content(bundle, "multi_gpu_train")
    for part in ("train", "validate"):
        for number, handler in enumerate(plain.get(part, {}).get("handlers", [])):
            if "Checkpoints" in str(handler) or handler == "@validate#best_model":
                assert f"{part}#handlers#{number}#_disabled_" not in override


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_without_torchrun_a_run_says_what_to_do_and_ends_cleanly(name, configs, dataset_dir, tmp_path, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    workflow = ConfigWorkflow(
        config_file=[str(configs / f"{name}.json"), str(configs / f"multi_gpu_{name}.json")],
        workflow_type="train" if name == "train" else "infer",
        logging_file=False,
        **{"bundle_root": str(tmp_path), "dataset_dir": str(dataset_dir)},
    )
    try:
        with pytest.raises(RuntimeError) as caught:
            workflow.initialize()
    finally:
        workflow.finalize()
    assert "torchrun --standalone --nproc_per_node=2" in str(caught.value.__cause__)
    assert list(tmp_path.iterdir()) == []
