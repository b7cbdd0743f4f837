# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Whether every bundle trains only what its loss depends on, which DistributedDataParallel demands."""

from __future__ import annotations

import pytest
import torch
from image_bundles import workflow
from process_groups import in_two_processes
from torch.nn.parallel import DistributedDataParallel

from monai_fewshot.networks.encoders import DilatedResNetEncoder, UNetEncoder, VGG16Encoder
from monai_fewshot.networks.nets import MaskSplitNet

LABELS = {"pseudo_labels#min_size": 40}
SHALLOW = {"encoder#depth": 18}
PROJECTED = {"encoder#out_channels": 8}
VGG = {"encoder": {"_target_": "monai_fewshot.utils.define", "name": "monai_fewshot.networks.encoders.VGG16Encoder"}}
TRAININGS = [
    ("ssl_alpnet", "train", LABELS),
    ("ssl_alpnet", "train paper", SHALLOW | LABELS),
    ("panet", "train", LABELS),
    ("panet", "train paper", LABELS),
    ("panet", "train resnet", SHALLOW | LABELS),
    ("adnet", "train", {}),
    ("adnet", "train paper", SHALLOW),
    ("se_net", "train", {}),
    ("self_training", "train", {"progress#latest_start": 0.0}),
    ("supervised", "train", {}),
    ("supervised", "train attention", {}),
    ("elsnet", "train", {}),
    ("elsnet", "train paper", {"base#stem_channels": [4, 8, 8], "base#channels": [8, 16, 32], "image_size": [64, 64]}),
    ("masksplit", "train", {}),
    ("masksplit", "train", PROJECTED),
    ("masksplit", "train", VGG),
    ("masksplit", "train paper", SHALLOW),
    ("masksplit", "train paper", SHALLOW | PROJECTED),
    ("meta_learning", "train", {}),
    ("meta_learning", "train maml", {}),
    ("meta_learning", "train supervised", {}),
    ("surrogate_fewshot", "train", {}),
    ("surrogate_fewshot", "train few_shot", {}),
    ("surrogate_fewshot", "train alpnet", {}),
    ("surrogate_fewshot", "train paper", {}),
]


@pytest.fixture
def data(nine_scans, lesions, shapes):
    """Settings by bundle that name data."""
    of_scans = {"dataset_dir": nine_scans, "num_folds": 3, "fold": 0}
    return dict.fromkeys(
        ("ssl_alpnet", "panet", "adnet", "se_net", "self_training", "supervised", "elsnet"), of_scans
    ) | {
        "masksplit": {"dataset_dir": lesions, "masks_dir": lesions + "/masks"},
        "meta_learning": {"dataset_dir": shapes, "inner_steps": 1, "num_val_tasks": 2, "shots": 1, "queries": 1},
        "surrogate_fewshot": {"dataset_dir": shapes, "unlabeled_dir": lesions, "num_unlabeled": 3},
    }


@pytest.mark.parametrize(("bundle", "names", "settings"), TRAININGS)
def test_every_trained_parameter_gets_a_gradient(bundle, names, settings, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where defaults of the bundles lie
    step = {"epoch_length": 1, "max_epochs": 1, "batch_size": 2, "ckpt_dir": str(tmp_path), "initialize": []}
    step |= {} if bundle in ("elsnet", "self_training", "supervised", "meta_learning") else {"num_val_episodes": 2}
    step |= {} if bundle == "meta_learning" else {"dtype": "$torch.float32"}
    made = workflow(bundle, *names.split(), **{**step, **data[bundle], **settings})
    network = made.parser.get_parsed_content("network")
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    made.run()
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []
    assert any(not torch.equal(parameter, before[name]) for name, parameter in trained.items())


def _encoders():
    return {
        "unet": UNetEncoder(2, 3, channels=(4, 8)),
        "resnet": DilatedResNetEncoder(18),
        "vgg": VGG16Encoder(num_blocks=4, stride=4, keep_pool=False),
    }


def _two_steps(rank, folder):
    """Losses of MaskSplit with trainable encoders that have a projection where encoders have one."""
    losses = {}
    for name, encoder in _encoders().items():
        torch.manual_seed(0)
        network = MaskSplitNet(2, encoder, channels=8, decoder_channels=(8, 8, 8), freeze_encoder=False)
        shared = DistributedDataParallel(network.train())
        optimizer = torch.optim.SGD(shared.parameters(), 0.1)
        image, support, label = torch.rand(2, 3, 32, 32), torch.rand(2, 1, 3, 32, 32), torch.ones(2, 1, 1, 32, 32)
        losses[name] = []
        for _ in range(2):
            optimizer.zero_grad()
            loss = shared(image, support, label).logits.square().mean()
            loss.backward()
            optimizer.step()
            losses[name].append(loss.item())
    return losses


def test_two_processes_train_masksplit_with_its_encoder(tmp_path):
    for losses in in_two_processes(_two_steps, tmp_path):
        assert losses.keys() == _encoders().keys()
        assert all(first != second for first, second in losses.values())
