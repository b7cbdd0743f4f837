# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import MetaKeys

__all__ = ["IMAGE_AFFINE", "ImageAsVolumeD", "ImageAsVolumeDict", "ImageAsVolumed"]

IMAGE_AFFINE = np.array([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""An affine under which pictures of a volume's slice show rows as rows, from the top, and columns from the left."""


class ImageAsVolumed(MapTransform):
    """Make of 2D images (C, H, W) volumes of one slice (C, H, W, 1), for what segments and scores volumes.

    So an annotated image serves other images as an annotated scan does, and all protocols, inferers and reports apply.
    A pixel counts as 1 x 1 mm: distances are in pixels.

    Example:
        >>> ImageAsVolumed("image")({"image": torch.zeros(3, 4, 5)})["image"].shape
        torch.Size([3, 4, 5, 1])
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the axis of slices to the images and labels of a dictionary."""
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key].unsqueeze(-1)
            meta = {name: value for name, value in getattr(image, "meta", {}).items() if name != MetaKeys.AFFINE}
            d[key] = MetaTensor(torch.as_tensor(image), affine=torch.from_numpy(IMAGE_AFFINE), meta=meta)
        return d


ImageAsVolumeD = ImageAsVolumeDict = ImageAsVolumed
