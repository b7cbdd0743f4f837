# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Episodes and an encoder for tests of prototype networks."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class TwoLayers(nn.Module):
    """The encoder of the reference arrays."""

    def __init__(self, in_channels: int = 3):
        super().__init__()
        self.a = nn.Conv2d(in_channels, 8, 3, 2, 1)
        self.b = nn.Conv2d(8, 16, 3, 2, 1)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


def random_episodes(batch=2, shots=1, num_classes=1, size=(64, 48), channels=3, seed=0):
    """Images (B, C, H, W), support images and labels with a block of 17 x 20 pixels for each class."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, channels, *size, generator=generator)
    support_image = torch.randn(batch, shots, channels, *size, generator=generator)
    label = torch.zeros(batch, shots, 1, *size)
    for b in range(batch):
        for k in range(shots):
            for c in range(1, num_classes + 1):
                row, column = 18 * (c - 1) + 2 * k, 4 + 6 * b
                label[b, k, 0, row : row + 17, column : column + 20] = c
    return image, support_image, label


def golden_cases(file):
    """Read the cases of a file of reference arrays, each a dictionary."""
    data = np.load(file)
    names = sorted({key.split("/")[0] for key in data.files})
    assert names
    return [{key.split("/", 1)[1]: data[key] for key in data.files if key.startswith(f"{n}/")} for n in names]
