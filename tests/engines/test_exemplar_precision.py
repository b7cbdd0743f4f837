# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Losses and gradients of exemplar learning in mixed precision, with channels last, and compiled."""

from __future__ import annotations

import pytest
import torch
from exemplar_runs import OTHERS, samples, training, weights
from monai.inferers import SimpleInferer
from monai.networks.nets import UNet

from monai_fewshot.engines import PrepareBatchSamples
from monai_fewshot.inferers import AutocastInferer
from monai_fewshot.losses import ExemplarLoss
from monai_fewshot.networks import prepare_network
from monai_fewshot.networks.nets import EmbeddingNetwork


def network():
    torch.manual_seed(2)
    return EmbeddingNetwork(UNet(2, 1, 3, (8, 16, 32), (2, 2)), "model.1.submodule.1")


def loss_and_gradient(model, dtype=torch.float32):
    made = samples()(unlabeled=OTHERS).__getitems__([0, 1])
    batch = {key: torch.stack([sample[key] for sample in made]) for key in ("image", "label")}
    image, label = PrepareBatchSamples()(batch, "cpu")
    torch.manual_seed(4)
    model.train()
    output = AutocastInferer(SimpleInferer(), dtype)(image, model)
    loss = ExemplarLoss(contrast_weight=0.1)(output, label)
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters()]), output


@pytest.fixture(scope="module")
def plain():
    return loss_and_gradient(network())


@pytest.mark.parametrize(
    ("channels_last", "compiled"), [(True, False), (False, True)], ids=["channels last", "compiled"]
)
def test_arrangement_and_compilation_change_nothing(channels_last, compiled, plain):
    model = prepare_network(network(), "cpu", channels_last=channels_last)
    if compiled:
        model.compile(fullgraph=True, backend="aot_eager")
    loss, gradient, output = loss_and_gradient(model)
    assert output.logits.is_contiguous(memory_format=torch.channels_last) == channels_last
    torch.testing.assert_close(loss, plain[0], rtol=1e-5, atol=0)
    assert (gradient - plain[1]).norm() < 1e-3 * plain[1].norm()


def test_mixed_precision_goes_the_same_way(plain):
    loss, gradient, output = loss_and_gradient(network(), torch.bfloat16)
    assert output.logits.dtype == output.embedding.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain[0], rtol=0.02, atol=0)
    assert torch.cosine_similarity(gradient, plain[1], dim=0) > 0.98


def test_a_network_trains_and_labels_in_mixed_precision(tmp_path):
    run = training(tmp_path, inferer=AutocastInferer(SimpleInferer(), torch.bfloat16), max_epochs=1)
    run.run()
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "model.pt").values())
