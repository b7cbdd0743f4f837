# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
from monai.config import NdarrayOrTensor
from skimage.segmentation import felzenszwalb

from .felzenszwalb_volume import felzenszwalb_settings
from .pseudo_label_source import PseudoLabelSource, PseudoLabelSourced, consecutive_labels

__all__ = ["SuperpixelLabels", "SuperpixelLabelsD", "SuperpixelLabelsDict", "SuperpixelLabelsd"]


class SuperpixelLabels(PseudoLabelSource):
    """Superpixels of every slice as pseudo-labels, by Felzenszwalb's graph-based segmentation.

    Give it the raw intensities at the resolution that episodes are drawn at, before normalization: with the default
    ``scale`` superpixels grow by ``min_size`` alone, whatever the unit of the intensities.

    Based on: Ouyang et al., "Self-Supervision with Superpixels: Training Few-shot Medical Image Segmentation without
    Annotation", ECCV 2020, section 3.3, https://arxiv.org/abs/2007.09886; Felzenszwalb and Huttenlocher, "Efficient
    Graph-Based Image Segmentation", IJCV 2004.

    Deviation: every superpixel has an id and every id has pixels; the original implementation loses one superpixel,
    leaves one id empty and never draws the top one. What the foreground mask cuts off a superpixel is a pseudo-label
    only from ``min_area`` pixels on; the original keeps fragments of a single pixel. Integer images are not rescaled
    by the range of their type, as scikit-image would, so that type does not matter.

    Args:
        scale: observation level; higher means larger superpixels. Defaults to 1.
        min_size: smallest superpixel before the foreground mask cuts it, in pixels, for slices of 256 x 256.
            Defaults to 400.
        sigma: standard deviation of the smoothing that precedes, in pixels. Defaults to 1.
        threshold: intensity that the foreground exceeds, or "auto"; see :class:`BodyMask`. Defaults to "auto".
        min_area: smallest number of foreground pixels of a pseudo-label. Defaults to a quarter of ``min_size``.
        cache_dir: folder that keeps results under a key of image content and parameters. Defaults to None, no cache.

    Raises:
        ValueError: when a number is out of its range.
        OSError: when the cache folder cannot be written to.

    Example:
        >>> image = np.full((1, 64, 64), 10.0)
        >>> image[:, 8:56, 8:32], image[:, 8:56, 32:56] = 100.0, 200.0
        >>> labels = SuperpixelLabels(threshold=50)(image)
        >>> np.unique(labels)
        array([0, 1, 2], dtype=int32)
    """

    def __init__(
        self,
        scale: float = 1.0,
        min_size: int = 400,
        sigma: float = 1.0,
        threshold: float | str = "auto",
        min_area: int | None = None,
        cache_dir: str | PathLike | None = None,
    ) -> None:
        self.settings = felzenszwalb_settings(scale, min_size, sigma)
        super().__init__(threshold, max(min_size // 4, 1) if min_area is None else min_area, cache_dir)

    def parameters(self, image: NdarrayOrTensor) -> dict[str, Any]:
        """Arguments of Felzenszwalb's algorithm."""
        return self.settings

    def regions(self, image: np.ndarray, foreground: np.ndarray, **parameters: Any) -> np.ndarray:
        """Superpixels of every slice, ids from 1 on in each."""

        def superpixels(index: int) -> np.ndarray:
            inside = foreground[..., index]
            if not inside.any():
                return inside.astype(np.int32)
            plane = np.ascontiguousarray(image[..., index], dtype=np.float64)
            return consecutive_labels(
                np.where(inside, felzenszwalb(plane, channel_axis=0, **parameters) + 1, 0), self.min_area
            )

        return np.stack([superpixels(index) for index in range(image.shape[-1])], axis=-1)


class SuperpixelLabelsd(PseudoLabelSourced):
    """Dictionary form of :class:`SuperpixelLabels`: arguments of the base class, then its own by name."""

    source_type = SuperpixelLabels


SuperpixelLabelsD = SuperpixelLabelsDict = SuperpixelLabelsd
