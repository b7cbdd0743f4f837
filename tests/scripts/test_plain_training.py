# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What the benchmarks call the plain way computes what the package computes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_fewshot.losses import EpisodeLoss
from monai_fewshot.networks.nets import ALPNet, UNetEncoder

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from plain_training import plain_episode, plain_loss


@pytest.mark.parametrize(("rows", "columns"), [((8, 40), (12, 50)), ((8, 10), (12, 14)), ((1, 63), (1, 62))])
def test_the_plain_loss_is_the_loss_of_the_package(rows, columns):
    torch.manual_seed(0)
    network = ALPNet(2, UNetEncoder(channels=(8, 16), out_channels=8), train_window=4)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., slice(*rows), slice(*columns)] = 1
    image, support_image = torch.rand(2, 1, 1, 64, 64) + mask
    expected, logits = plain_loss(network.encoder, (image, mask, support_image, mask), 4, 0.1)
    output = network(image, support_image[None], mask[None])
    torch.testing.assert_close(output[0], logits, atol=1e-3, rtol=0)
    torch.testing.assert_close(EpisodeLoss(0.1)(output, (mask, mask[None])), expected, atol=1e-4, rtol=1e-4)


def test_a_plain_episode_shows_one_superpixel_twice():
    image = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    labels = np.zeros((64, 64), np.int32)
    labels[10:40, 20:50] = 3
    query, mask, support, support_mask = plain_episode(image, labels, np.random.RandomState(0))
    assert all(x.shape == (1, 1, 64, 64) for x in (query, mask, support, support_mask))
    for moved in (mask, support_mask):
        assert set(moved.unique().tolist()) == {0, 1}
        assert 0.6 * 900 < moved.sum() < 1.7 * 900
    assert not torch.equal(mask, support_mask)
    assert not torch.equal(query, support)
