# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Override files of the SSL-ALPNet bundle: training on several devices, and the paper's settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_fewshot.networks.nets import DilatedResNetEncoder

ON_RANK_0_ALONE = {"ProgressBar", "StatsHandler", "TensorBoardStatsHandler", "TensorBoardImageHandler"}
SMALL = {"image_size": [32, 32], "num_folds": 3, "fold": 0}
ONE_STEP = {"epoch_length": 1, "max_epochs": 1, "num_val_episodes": 6, "pseudo_labels#min_size": 40}


def train_in_processes(configs: Path, dataset_dir: Path, folder: Path, processes: int) -> dict:
    """Take one step with a network and a loss in which episodes do not touch one another; return the checkpoint."""
    files = ["train.json"] + ["multi_gpu_train.json"] * (processes > 1)
    options = {
        **SMALL,
        **ONE_STEP,
        "config_file": [str(configs / name) for name in files],
        "bundle_root": folder,
        "dataset_dir": dataset_dir,
        "encoder::channels": [4, 8],
        "encoder::norm": "instance",
        "loss::background_weight": 1.0,
    }
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    done = subprocess.run(
        [
            *(sys.executable, *(launcher if processes > 1 else []), "-m", "monai.bundle", "run"),
            *(word for key, value in options.items() for word in (f"--{key}", str(value))),
        ],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return torch.load(folder / "models" / "fold0" / "checkpoint_epoch=1.pt", weights_only=True)


@pytest.mark.slow
def test_two_processes_take_the_step_that_one_takes(configs, dataset_dir, tmp_path):
    one, two = (train_in_processes(configs, dataset_dir, tmp_path / str(n), n) for n in (1, 2))
    assert one["model"].keys() == two["model"].keys()
    gradients = [[state["exp_avg"] for state in run["optimizer"]["state"].values()] for run in (one, two)]
    for single, double in zip(*gradients, strict=True):
        torch.testing.assert_close(double, single, rtol=1e-3, atol=1e-7)
    assert max(float(gradient.abs().max()) for gradient in gradients[0]) > 1e-4
    written = [sorted(path.name for path in (tmp_path / run / "models" / "fold0").iterdir()) for run in "12"]
    assert written[0] == written[1]
    events = [len(list((tmp_path / run / "models" / "fold0" / "logs").iterdir())) for run in "12"]
    assert events[0] == events[1]


def test_what_logs_is_disabled_on_other_ranks(configs):
    train = json.loads((configs / "train.json").read_text())
    override = json.loads((configs / "multi_gpu_train.json").read_text())
    for part in ("train", "validate"):
        names = [
            "" if isinstance(handler, str) else handler["_target_"].rpartition(".")[2]
            for handler in train[part]["handlers"]
        ]
        disabled = {int(key.split("#")[2]) for key in override if key.startswith(f"{part}#handlers#")}
        assert disabled == {index for index, name in enumerate(names) if name in ON_RANK_0_ALONE}


@pytest.mark.parametrize("name", ["train", "evaluate", "inference"])
def test_the_papers_network_is_one_override_away(name, configs, tmp_path):
    workflow = ConfigWorkflow(
        config_file=[str(configs / f"{name}.json"), str(configs / "paper.json")],
        workflow_type="train" if name == "train" else "infer",
        logging_file=False,
        initialize=[],
        **{"encoder#depth": 18},
    )
    workflow.initialize()
    network = workflow.parser.get_parsed_content("network_def")
    assert isinstance(network.encoder, DilatedResNetEncoder)
    assert network.encoder.out_channels == 256
    assert (network.train_window, network.eval_window) == (4, 2)
    assert workflow.parser.get_parsed_content("image_size") == [256, 256]


def test_the_papers_training_runs(configs, dataset_dir, tmp_path):
    files = [str(configs / "train.json"), str(configs / "paper.json")]
    paper = json.loads(Path(files[1]).read_text())
    assert paper["max_epochs"] * paper["epoch_length"] == 100_100
    workflow = ConfigWorkflow(
        config_file=files,
        workflow_type="train",
        logging_file=False,
        bundle_root=str(tmp_path),
        dataset_dir=str(dataset_dir),
        **{**SMALL, **ONE_STEP, "encoder#depth": 18},
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    optimizer = workflow.parser.get_parsed_content("optimizer")
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["momentum"], optimizer.defaults["weight_decay"]) == (0.9, 5e-4)
    schedule = workflow.parser.get_parsed_content("lr_scheduler")
    assert (schedule.step_size, schedule.gamma) == (1000, 0.95)
    assert workflow.parser.get_parsed_content("loss").background_weight == 0.05
    assert (tmp_path / "models" / "fold0" / "model.pt").is_file()
