# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import zlib
from os import PathLike
from typing import Any

import numpy as np
from monai.config import NdarrayOrTensor

from .pseudo_label_source import PseudoLabelSource, PseudoLabelSourced

__all__ = ["RandomRectangleLabels", "RandomRectangleLabelsD", "RandomRectangleLabelsDict", "RandomRectangleLabelsd"]


class RandomRectangleLabels(PseudoLabelSource):
    """Disjoint random rectangles inside the foreground of every slice as pseudo-labels that follow no edge.

    The control of an ablation: what superpixels do better than these is due to their following the image. Sides are
    drawn log-uniformly, and the defaults give about the areas that superpixels of ``min_size`` 400 have on abdominal
    and cardiac MR of 256 x 256: quartiles 990, 1410 and 2080 pixels, for superpixels 900 to 1010, 1450 to 1560 and 2270
    to 2550. The draws depend on the seed and the slice's intensities alone.

    Args:
        min_side: shortest side, in pixels. Defaults to 24.
        max_side: longest side, in pixels. Defaults to 96.
        attempts: rectangles tried in a slice; those that leave the foreground or touch an earlier one are not laid.
            Defaults to 300.
        seed: seed of the draws. Defaults to 0.
        threshold: intensity that the foreground exceeds, or "auto"; see :class:`BodyMask`. Defaults to "auto".
        cache_dir: folder that keeps results under a key of image content and parameters. Defaults to None, no cache.

    Raises:
        ValueError: when a number is out of its range.
        OSError: when the cache folder cannot be written to.

    Example:
        >>> image = np.zeros((1, 64, 64))
        >>> image[:, 8:56, 8:56] = 100
        >>> labels = RandomRectangleLabels(min_side=8, max_side=8)(image)
        >>> int((labels == 1).sum())
        64
    """

    def __init__(
        self,
        min_side: int = 24,
        max_side: int = 96,
        attempts: int = 300,
        seed: int = 0,
        threshold: float | str = "auto",
        cache_dir: str | PathLike | None = None,
    ) -> None:
        if not 1 <= min_side <= max_side or attempts < 1 or seed < 0:
            raise ValueError(
                "sides must fulfill 1 <= min_side <= max_side, attempts 1 or greater and seed 0 or greater, "
                f"got {min_side}, {max_side}, {attempts} and {seed}"
            )
        super().__init__(threshold, 1, cache_dir)
        self.settings = {"min_side": min_side, "max_side": max_side, "attempts": attempts, "seed": seed}

    def parameters(self, image: NdarrayOrTensor) -> dict[str, Any]:
        """Range of the sides, attempts and seed."""
        return self.settings

    def regions(self, image: np.ndarray, foreground: np.ndarray, **parameters: Any) -> np.ndarray:
        """Rectangles of every slice, ids from 1 on in each."""
        slices = range(image.shape[-1])
        return np.stack([self.rectangles(image[..., index], foreground[..., index]) for index in slices], axis=-1)

    def rectangles(self, image: np.ndarray, foreground: np.ndarray) -> np.ndarray:
        """Rectangles (H, W) of one slice (C, H, W) inside its foreground (H, W)."""
        labels = np.zeros(foreground.shape, np.int32)
        if not foreground.any():
            return labels
        content = zlib.crc32(np.ascontiguousarray(image, np.float64).data)
        draws = np.random.default_rng([self.settings["seed"], content]).random((self.settings["attempts"], 4))
        shortest, longest = self.settings["min_side"], self.settings["max_side"]
        sides = (shortest * ((longest + 1) / shortest) ** draws[:, :2]).astype(int)
        room = np.array(foreground.shape) - sides
        fits = (room >= 0).all(axis=1)
        corners = np.floor(draws[:, 2:] * (room + 1)).astype(int)
        free = foreground.copy()
        for (top, left), (height, width) in zip(corners[fits], sides[fits], strict=True):
            place = slice(top, top + height), slice(left, left + width)
            if free[place].all():
                labels[place] = labels.max() + 1
                free[place] = False
        return labels


class RandomRectangleLabelsd(PseudoLabelSourced):
    """Dictionary form of :class:`RandomRectangleLabels`: arguments of the base class, then its own by name."""

    source_type = RandomRectangleLabels


RandomRectangleLabelsD = RandomRectangleLabelsDict = RandomRectangleLabelsd
