# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
from scipy import ndimage

__all__ = ["field_of_view"]


def field_of_view(image: np.ndarray, darkness: float = 0.1, smallest: float = 0.3) -> np.ndarray:
    """Tell what of an image is shown by the optics: all but dark corners and frames.

    Pixels darker than a tenth of the image's brightest in all channels, and connected to the border, are outside. Where
    that would leave too little, all of the image is inside.

    Args:
        image: (C, H, W).
        darkness: part of the range of intensities below which a pixel is dark.
        smallest: part of the image that must be inside.

    Returns:
        (H, W) bool.
    """
    brightest = image.max(axis=0).astype(np.float64)
    low, high = brightest.min(), np.percentile(brightest, 99)
    components, _ = ndimage.label(brightest < low + darkness * (high - low))
    border = np.concatenate([components[0], components[-1], components[:, 0], components[:, -1]])
    outside = np.isin(components, np.unique(border[border > 0]))
    inside = ndimage.binary_opening(~outside, iterations=2) if outside.any() else ~outside
    return inside if inside.mean() >= smallest else np.ones(inside.shape, bool)
