# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Runs of the bundles, with small networks."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_fewshot.utils import root_cause

BUNDLES = Path(__file__).parents[2] / "bundles"
SMALL = {
    "adnet": {"encoder#channels": [4, 8], "encoder#out_channels": 8},
    "elsnet": {"base#features": [4, 4, 8, 8, 8, 4]},
    "meta_learning": {"base#channels": [4, 8], "base#strides": [2]},
    "masksplit": {"encoder#channels": [4, 8], "network_def#channels": 8, "network_def#decoder_channels": [8, 8, 8]},
    "panet": {"encoder#channels": [4, 8], "encoder#out_channels": 8},
    "registration": {},
    "se_net": {"network_def#conditioner_channels": 3, "network_def#channels": 4},
    "ssl_alpnet": {"encoder#channels": [4, 8], "encoder#out_channels": 8},
    "self_training": {"base#features": [8, 8, 8, 8, 8, 8], "image_size": [64, 64]},
    "supervised": {"network_def#features": [4, 4, 8, 8, 8, 4]},
    "surrogate_fewshot": {"encoder#channels": [4, 8], "encoder#out_channels": 8, "network_def#channels": [8, 4]},
}
OWN_NETWORK = {"saliency", "paper", "resnet", "attention"}
TYPES = {"train": "train", "saliency": None}


def workflow(bundle, *names, **settings):
    """Read and initialize configurations of a bundle; training has a small network and small images."""
    training = {"image_size": [32, 32]} if TYPES.get(names[0], "infer") != "infer" else {}
    if names[0] == "train" and not OWN_NETWORK & set(names):
        training |= SMALL[bundle]
    if "alpnet" in names:
        training = {key: value for key, value in training.items() if not key.startswith("network_def")}
    found = ConfigWorkflow(
        config_file=[str(BUNDLES / bundle / "configs" / f"{name}.json") for name in names],
        workflow_type=TYPES.get(names[0], "infer"),
        logging_file=False,
        **{"device": "$torch.device('cpu')", **training, **settings},
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
    return str(root_cause(failure.value))


def load(path):
    return torch.load(path, map_location="cpu", weights_only=True)


def classes_of_mask(bundle, dataset_dir, checkpoint, output_dir, **settings):
    """Segment one scan after another one, see that the mask has the scan's grid, and return what numbers it holds."""
    scan = Path(dataset_dir) / "imagesTr" / "scan_0.nii.gz"
    run(
        bundle,
        "inference",
        dataset_dir=str(scan),
        support_image=str(scan.with_name("scan_5.nii.gz")),
        support_label=str(Path(dataset_dir) / "labelsTr" / "scan_5.nii.gz"),
        checkpoint=str(checkpoint),
        output_dir=str(output_dir),
        **settings,
    )
    mask, scan = nibabel.load(Path(output_dir) / "scan_0_seg.nii.gz"), nibabel.load(scan)
    np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-4)
    assert mask.shape == scan.shape
    return set(np.unique(np.asarray(mask.dataobj)))
