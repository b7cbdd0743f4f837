# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Small stacks of slices with labels, from which episodes are drawn."""

from __future__ import annotations

import torch

from monai_fewshot.data import SliceStack

PSEUDO_LABELS = {0: {1, 2, 3}, 1: set(), 2: {2, 7}, 3: {1}, 4: {5, 6, 8, 9}}


def pseudo_labels(channels=1):
    """Five slices of 24 x 20, the second without pseudo-labels; ids are not consecutive."""
    label = torch.zeros(5, 1, 24, 20, dtype=torch.int32)
    for index, values in PSEUDO_LABELS.items():
        for row, value in enumerate(sorted(values)):
            label[index, 0, 6 * row : 6 * row + 5, 3 + index : 15] = value
    image = torch.rand(5, channels, 24, 20, generator=torch.Generator().manual_seed(0))
    return SliceStack(image, label, torch.tensor([0, 0, 1, 1, 2]))


def annotated(seed=0):
    """Four scans of three slices; scan 3 shows class 4 alone, class 9 is in one scan only."""
    label = torch.zeros(12, 1, 16, 16, dtype=torch.int32)
    label[:9, 0, 1:5, 1:5] = 2
    label[[0, 3, 4, 7], 0, 8:12, 2:6] = 4
    label[9:, 0, 8:12, 8:12] = 4
    label[1:8:2, 0, 2:9, 9:14] = 5
    label[2, 0, 13:16, 13:16] = 9
    image = torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    return SliceStack(image, label, torch.arange(4).repeat_interleave(3))
