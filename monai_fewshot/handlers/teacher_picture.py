# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.config import PathLike

from monai_fewshot.data import SliceStack
from monai_fewshot.utils import process_rank, write_atomically
from monai_fewshot.visualize import Panel, class_colors, figure_to_png, orient_slice, overlay_figure

from .teacher import Teacher

__all__ = ["TeacherPicture"]


class TeacherPicture:
    """After every epoch, draw what the teacher finds in a few unlabeled slices, over the picture of the epoch before.

    The slices lie in the middle of the first scans; all pictures show the same ones. In a process group the first
    process draws.

    Args:
        teacher: the teacher.
        stack: the unlabeled slices; None draws nothing.
        class_names: names of the classes 1..N.
        path: of the picture, a PNG file.
        axes: unit vectors in the patient's coordinates along which rows, columns and slices increase, see
            :func:`monai_fewshot.data.scan_axes`; by default those of the array.
        colors: whether the three channels are red, green and blue; else the first one is shown.
        number: of scans.
    """

    def __init__(
        self,
        teacher: Teacher,
        stack: SliceStack | None,
        class_names: Sequence[str],
        path: PathLike,
        axes: Sequence[Sequence[float]] | None = None,
        colors: bool = False,
        number: int = 6,
    ) -> None:
        self.teacher = teacher
        self.stack = stack
        self.class_names = dict(enumerate(class_names, 1))
        self.path = Path(path)
        self.channels = slice(0, 3 if colors else 1)
        self.affine = np.eye(4)
        if axes is not None:
            self.affine[:3, :3] = np.transpose(axes)
        scans = [] if stack is None else [(stack.scan == scan).nonzero().flatten() for scan in stack.scan.unique()]
        self.places = [int(slices[len(slices) // 2]) for slices in scans[:number]]

    def attach(self, engine: Engine) -> None:
        """Register with a trainer.

        Args:
            engine: the trainer.
        """
        if process_rank() == 0 and self.places:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        """Draw."""
        assert self.stack is not None
        image, _ = self.stack.take(self.places)
        found = self.teacher.network(image).argmax(1).cpu().numpy()
        panels = []
        for number, (picture, label) in enumerate(zip(image[:, self.channels].cpu().numpy(), found, strict=True)):
            shown, aspect = orient_slice(picture, self.affine)
            mask, _ = orient_slice(label, self.affine)
            outlines = {name: mask == value for value, name in self.class_names.items()}
            colors = {self.class_names[value]: color for value, color in class_colors(self.class_names).items()}
            pixels = shown[0] if len(shown) == 1 else _levels(shown).transpose(1, 2, 0)
            panels.append(Panel(pixels, outlines, f"scan {number + 1}", aspect, colors))
        figure = overlay_figure(panels, columns=3)
        figure.suptitle(f"epoch {engine.state.epoch} of {engine.state.max_epochs}", fontsize=9)
        write_atomically(self.path, figure_to_png(figure))


def _levels(picture: np.ndarray) -> np.ndarray:
    """Bring normalized colors (3, H, W) to levels from 0 to 1."""
    low, high = np.percentile(picture, (0.5, 99.5))
    return np.clip((picture - low) / max(high - low, 1e-6), 0, 1)
