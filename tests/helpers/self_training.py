# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Small self-trainings: slices with two organs, and a trainer."""

from __future__ import annotations

import torch
from torch import nn

from monai_fewshot.data import SliceStack
from monai_fewshot.engines import SelfTrainer
from monai_fewshot.handlers import ClassProgress, Teacher
from monai_fewshot.losses import PresentClassesLoss


def slices(number=6, size=16, seed=0):
    """A stack of slices, in all but the first of which two squares, bright and dark, lie in noise."""
    generator = torch.Generator().manual_seed(seed)
    image = 0.3 * torch.randn(number, 1, size, size, generator=generator)
    label = torch.zeros(number, 1, size, size, dtype=torch.uint8)
    for place in range(1, number):
        row, column = torch.randint(0, size // 4, (2,), generator=generator).tolist()
        label[place, 0, row : row + size // 2, column : column + size // 3] = 1
        label[place, 0, row : row + size // 3, column + size // 2 : column + 3 * size // 4] = 2
    image += 1.5 * (label == 1) - 1.5 * (label == 2)
    return SliceStack(image, label, torch.arange(number) // 3)


def small_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 3, 3, padding=1))


def self_trainer(network, annotated, unlabeled, progress=None, optimizer=None, **options):
    """A trainer whose teacher is attached."""
    options = {"device": torch.device("cpu"), "max_epochs": 1, "loss_function": PresentClassesLoss(), **options}
    teacher = options.pop("teacher", None) or Teacher(getattr(network, "module", network), 0.1)
    trainer = SelfTrainer(
        train_data_loader=annotated,
        unlabeled_data_loader=unlabeled,
        network=network,
        teacher=teacher,
        optimizer=optimizer or torch.optim.SGD(network.parameters(), 0.1),
        progress=progress or ClassProgress(["bright", "dark"], 100),
        **options,
    )
    teacher.attach(trainer)
    return trainer
