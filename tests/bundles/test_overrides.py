# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Override files of the SSL-ALPNet bundle, in one process: what they change, and the paper's settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_fewshot.networks.encoders import DilatedResNetEncoder

pytestmark = pytest.mark.default_dtype
ON_RANK_0_ALONE = {"ProgressBar", "StatsHandler", "TensorBoardStatsHandler", "TensorBoardImageHandler"}
SMALL = {"image_size": [32, 32], "num_folds": 3, "fold": 0}
ONE_STEP = {"epoch_length": 1, "max_epochs": 1, "num_val_episodes": 6, "pseudo_labels#min_size": 40}


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
