# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Runs of the bundles, with small networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow

BUNDLES = Path(__file__).parents[2] / "bundles"
SMALL = {
    "adnet": {"encoder#channels": [4, 8], "encoder#out_channels": 8},
    "elsnet": {"base#features": [4, 4, 8, 8, 8, 4]},
    "meta_learning": {"base#channels": [4, 8], "base#strides": [2]},
    "masksplit": {"encoder#channels": [4, 8], "network_def#channels": 8, "network_def#decoder_channels": [8, 8, 8]},
    "panet": {"encoder#channels": [4, 8], "encoder#out_channels": 8},
    "registration": {},
    "se_net": {"network_def#conditioner_channels": 3, "network_def#channels": 4},
    "supervised": {"network_def#features": [4, 4, 8, 8, 8, 4]},
    "surrogate_fewshot": {"encoder#channels": [4, 8], "encoder#out_channels": 8, "network_def#channels": [8, 4]},
}
OWN_NETWORK = {"saliency", "paper", "resnet", "attention"}
TYPES = {"train": "train", "saliency": None}


def workflow(bundle, *names, **settings):
    """Read and initialize configurations of a bundle, with a small network."""
    network = {} if OWN_NETWORK & set(names) else SMALL[bundle]
    if "alpnet" in names:
        network = {key: value for key, value in network.items() if not key.startswith("network_def")}
    found = ConfigWorkflow(
        config_file=[str(BUNDLES / bundle / "configs" / f"{name}.json") for name in names],
        workflow_type=TYPES.get(names[0], "infer"),
        logging_file=False,
        **{"device": "$torch.device('cpu')", "image_size": [32, 32], **network, **settings},
    )
    found.initialize()
    return found


def run(bundle, *names, **settings):
    found = workflow(bundle, *names, **settings)
    found.run()
    found.finalize()
    return found


def refusal(bundle, *names, **settings):
    """Why a configuration cannot be run."""
    with pytest.raises(RuntimeError) as failure:
        run(bundle, *names, **settings)
    error = failure.value
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def load(path):
    return torch.load(path, map_location="cpu", weights_only=True)
