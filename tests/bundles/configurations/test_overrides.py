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
SMALL = {"image_size": [32, 32], "num_folds": 3, "fold": 0}
ONE_STEP = {"epoch_length": 1, "max_epochs": 1, "num_val_episodes": 6, "pseudo_labels#min_size": 40}


def test_the_papers_training_runs(configs, dataset_dir, at_root, tmp_path):
    files = [str(configs / "train.json"), str(configs / "paper.json")]
    paper = json.loads(Path(files[1]).read_text())
    assert paper["image_size"] == [256, 256]
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
    network = workflow.parser.get_parsed_content("network_def")
    assert isinstance(network.encoder, DilatedResNetEncoder)
    assert network.encoder.out_channels == 256
    assert (network.train_window, network.eval_window) == (4, 2)
    optimizer = workflow.parser.get_parsed_content("optimizer")
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["momentum"], optimizer.defaults["weight_decay"]) == (0.9, 5e-4)
    schedule = workflow.parser.get_parsed_content("lr_scheduler")
    assert (schedule.step_size, schedule.gamma) == (1000, 0.95)
    assert workflow.parser.get_parsed_content("loss").background_weight == 0.05
    checkpoint = {"checkpoint": str(tmp_path / "models" / "fold0" / "model.pt"), "dataset_dir": str(dataset_dir)}
    at_root(tmp_path).run("evaluate", "paper", fold=0, **checkpoint)
    settings = json.loads((tmp_path / "eval" / "results.json").read_text())["provenance"]["settings"]
    assert (settings["threshold"], settings["keep_largest"]) == (0, False)
    inference = at_root(tmp_path).workflow("inference", "paper", initialize=[], **checkpoint).parser
    trained = inference.get_parsed_content("network_def")
    assert (type(trained.encoder), trained.train_window) == (DilatedResNetEncoder, 4)
    assert not inference.get_parsed_content("segmentation").keep_largest
