# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Small trainings from an exemplar, for several test modules and the processes that they start."""

from __future__ import annotations

import functools

import torch
from monai.networks.nets import BasicUNet

from monai_fewshot.data import ExemplarSamples, SliceStack
from monai_fewshot.engines import ExemplarTraining
from monai_fewshot.losses import ExemplarLoss
from monai_fewshot.networks.nets import EmbeddingNetwork
from monai_fewshot.transforms import RandExemplarSynthesis


def slices(number, seed):
    """Slices with a bright and a dark square on gray."""
    generator = torch.Generator().manual_seed(seed)
    image = 0.5 + 0.02 * torch.randn(number, 1, 32, 32, generator=generator)
    label = torch.zeros(number, 1, 32, 32, dtype=torch.uint8)
    for place in range(number):
        for value, level in ((1, 1.0), (2, 0.0)):
            row, column = (torch.randint(0, high, (1,), generator=generator).item() for high in (7, 22))
            row += 16 * (value - 1)
            image[place, 0, row : row + 9, column : column + 9] = level
            label[place, 0, row : row + 9, column : column + 9] = value
    return SliceStack(image, label, torch.arange(number))


EXEMPLAR, OTHERS = slices(1, 0), slices(7, 1)


def network(**options):
    torch.manual_seed(2)
    return EmbeddingNetwork(BasicUNet(2, 1, 3, features=(8, 8, 16, 16, 16, 8), **options), "down_2")


def samples(length=8):
    return functools.partial(ExemplarSamples, EXEMPLAR, length, RandExemplarSynthesis(2))


def training(folder, **settings):
    """A training whose contrast counts as much as its segmentation, and draws from torch's generator."""
    plain = {
        "network": network(),
        "samples": samples(),
        "unlabeled": OTHERS,
        "loss": ExemplarLoss(contrast_weight=1.0),
        "optimizer": functools.partial(torch.optim.Adam, lr=0.01),
        "folder": folder,
        "max_epochs": 2,
        "batch_size": 2,
    }
    return ExemplarTraining(**{**plain, **settings})


class StoppingLoss(ExemplarLoss):
    """Fails in a stage at its nth batch; only in the processes where ``here``.

    Args:
        stage: 1 or 2, by the number of a sample's images.
        batch: from 1.
        error: what is raised.
        here: whether it is.
    """

    def __init__(self, stage, batch, error=KeyboardInterrupt, here=True):
        super().__init__(contrast_weight=1.0)
        self.parts, self.left, self.error, self.here = stage + 1, batch, error, here

    def forward(self, input, target):
        self.left -= target.shape[1] == self.parts
        if self.here and not self.left:
            raise self.error("stopped")
        return super().forward(input, target)


def weights(path):
    return torch.load(path, weights_only=True)["model"]


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
