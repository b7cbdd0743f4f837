# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What the benchmarks call the plain way computes what the package computes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from monai_fewshot.losses import EpisodeLoss
from monai_fewshot.networks.blocks import TrainingTarget
from monai_fewshot.networks.encoders import UNetEncoder
from monai_fewshot.networks.nets import ALPNet

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import plain_training
from plain_training import plain_episode, plain_loss, plain_resize, plain_scores, plain_segmentation

BOXES = [((8, 40), (12, 50)), ((8, 10), (12, 14)), ((1, 63), (1, 62))]
"""Rows and columns of masks that fill cells, fill none, and leave none to the background."""


def _episode(rows, columns):
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., slice(*rows), slice(*columns)] = 1
    image, support_image = torch.rand(2, 1, 1, 64, 64) + mask
    return image, mask, support_image, mask


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ALPNet(2, UNetEncoder(channels=(8, 16), out_channels=8), train_window=4, eval_window=2)


@pytest.mark.parametrize(("rows", "columns"), BOXES)
def test_the_plain_loss_is_the_loss_of_the_package(network, rows, columns):
    image, mask, support_image, _ = episode = _episode(rows, columns)
    expected, logits = plain_loss(network.encoder, episode, 4, 0.1)
    output = network(image, support_image[None], mask[None])
    torch.testing.assert_close(output.logits, logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        EpisodeLoss(0.1)(output, TrainingTarget(mask, mask[None])), expected, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(("rows", "columns"), BOXES)
def test_the_plain_logits_are_those_of_the_package_in_evaluation(network, rows, columns):
    image, mask, support_image, _ = _episode(rows, columns)
    logits = plain_resize(plain_segmentation(network.encoder, image, support_image, mask, 2)[0], (64, 64))
    torch.testing.assert_close(network.eval()(image, support_image[None], mask[None]), logits, atol=1e-4, rtol=0)


def test_one_convolution_scores_as_one_prototype_after_another_does():
    random = torch.Generator().manual_seed(0)
    query, support = torch.randn(2, 1, 5, 16, 16, generator=random, dtype=torch.float64)
    mask = torch.zeros(16, 16, dtype=torch.float64)
    mask[2:11, 3:16] = 1
    expected = []
    for index, shown in enumerate([1 - mask, mask]):
        cells = [(slice(r, r + 2), slice(c, c + 2)) for r in range(0, 16, 2) for c in range(0, 16, 2)]
        prototypes = [support[0][:, r, c].mean((1, 2)) for r, c in cells if shown[r, c].mean() > 0.95]
        if index:
            prototypes.append((support[0] * shown).sum((1, 2)) / shown.sum())
        cosines = torch.stack([20 * F.cosine_similarity(query[0], p[:, None, None], dim=0) for p in prototypes])
        expected.append((cosines * cosines.softmax(0)).sum(0))
    scores = plain_scores(query, support, [1 - mask, mask], 2)[0]
    torch.testing.assert_close(scores, torch.stack(expected), atol=1e-6, rtol=0)


def test_a_plain_episode_shows_one_superpixel_twice():
    image = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    labels = np.zeros((64, 64), np.int32)
    labels[10:40, 20:50] = 3
    query, mask, support, support_mask = plain_episode(image, labels, np.random.RandomState(0))
    assert all(x.shape == (1, 64, 64) and x.dtype == torch.float32 for x in (query, mask, support, support_mask))
    for moved in (mask, support_mask):
        assert set(moved.unique().tolist()) == {0, 1}
        assert 0.6 * 900 < moved.sum() < 1.7 * 900
    assert not torch.equal(mask, support_mask)
    assert not torch.equal(query, support)


def test_plain_masks_move_with_their_images():
    labels = np.zeros((64, 64), np.int32)
    labels[10:40, 20:50] = 3
    image, mask = plain_episode((labels > 0).astype(np.float32), labels, np.random.RandomState(0))[:2]
    assert ((image > 0.5) != (mask > 0)).float().mean() < 0.03


def test_loader_processes_make_the_episodes(monkeypatch):
    monkeypatch.setattr(plain_training, "LOADER_PROCESSES", 1)
    images, labels = np.random.default_rng(0).random((2, 32, 32), np.float32), np.zeros((2, 32, 32), np.int32)
    labels[1, 8:24, 8:24] = 1
    episodes = plain_training.PlainEpisodes(images, labels, 2)
    made = list(episodes.loader("cpu"))
    assert len(made) == 2
    for batch, episode in zip(made, episodes, strict=False):
        assert all(torch.equal(x[0], y) for x, y in zip(batch, episode, strict=True))
