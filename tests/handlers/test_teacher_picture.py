# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import torch
from ignite.engine import Engine
from PIL import Image

from monai_fewshot.data import SliceStack
from monai_fewshot.handlers import Teacher, TeacherPicture


class Bright(torch.nn.Module):
    """Finds what is brighter than a threshold."""

    def __init__(self):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, image):
        return torch.cat([self.threshold - image, image - self.threshold], 1)


def stack(scans=3, slices=5):
    image = torch.zeros(scans * slices, 1, 20, 16)
    image[:, :, 4:12, 5:9] = 1.0
    return SliceStack(image, torch.zeros_like(image), torch.arange(scans).repeat_interleave(slices))


def test_the_middle_slices_of_the_first_scans_are_drawn_after_every_epoch(tmp_path):
    teacher = Teacher(Bright())
    picture = TeacherPicture(teacher, stack(), ["bright"], tmp_path / "progress.png", number=2)
    assert picture.places == [2, 7]
    engine = Engine(lambda engine, batch: None)
    picture.attach(engine)
    reds = []
    for threshold in (2.0, 0.5):
        teacher.network.threshold.fill_(threshold)
        engine.run(range(2), max_epochs=1)
        pixels = np.asarray(Image.open(tmp_path / "progress.png").convert("RGB")).astype(int)
        reds.append(int(((pixels[..., 0] - pixels[..., 2]) > 80).sum()))
    assert reds[0] == 0, "nothing is found"
    assert reds[1] > 200, "an outline is drawn"


def test_without_unlabeled_slices_nothing_is_drawn(tmp_path):
    engine = Engine(lambda engine, batch: None)
    TeacherPicture(Teacher(Bright()), None, ["bright"], tmp_path / "progress.png").attach(engine)
    engine.run(range(2))
    assert not any(tmp_path.iterdir())


def test_colors_are_drawn_as_colors(tmp_path):
    image = torch.zeros(1, 3, 20, 16)
    image[:, 0, :10] = 1.0
    image[:, 2, 10:] = 1.0
    teacher = Teacher(torch.nn.Conv2d(3, 2, 1))
    TeacherPicture(
        teacher,
        SliceStack(image, image[:, :1] * 0, torch.zeros(1).long()),
        ["x"],
        tmp_path / "progress.png",
        colors=True,
    )(Engine(lambda engine, batch: None))
    pixels = np.asarray(Image.open(tmp_path / "progress.png").convert("RGB")).astype(int)
    red, blue = pixels[..., 0] - pixels[..., 2] > 200, pixels[..., 2] - pixels[..., 0] > 200
    assert red.sum() > 1000
    assert blue.sum() > 1000
