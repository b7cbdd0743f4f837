# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.config import KeysCollection, SequenceStr
from monai.transforms import Resize, Resized
from monai.utils import InterpolateMode, TraceKeys

__all__ = ["ResizeInPlane", "ResizeInPlaneD", "ResizeInPlaneDict", "ResizeInPlaned"]


class ResizeInPlane(Resize):
    """Resize the slices of a volume, leaving their number alone, and back without a shift of labels.

    As ``monai.transforms.Resize``, but its inverse takes the voxel whose center is nearest.

    Deviation: ``monai.transforms.Invertd(nearest_interp=True)`` makes every recorded interpolation "nearest", which in
    torch counts from the voxels' corners: a mask that was resized from 448 to 256 pixels would come back half a pixel
    away. Here the inverse of "nearest" is "nearest-exact".

    Args:
        size: (H, W) of the slices in pixels.
        mode: interpolation, "trilinear" for images, "nearest-exact" for labels. Images are not smoothed first.

    Example:
        >>> ResizeInPlane((4, 4))(torch.zeros(1, 8, 8, 3)).shape
        torch.Size([1, 4, 4, 3])
    """

    def __init__(self, size: Sequence[int], mode: str = InterpolateMode.TRILINEAR) -> None:
        super().__init__(spatial_size=(*size, -1), mode=mode)

    def __call__(self, img: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Resize a volume.

        Args:
            img: volume (C, H, W, D).
            args: as for ``monai.transforms.Resize``.
            kwargs: likewise.

        Returns:
            Volume (C, *size, D).

        Raises:
            ValueError: if the volume has no pixel, as after too large a crop.
        """
        if 0 in img.shape:
            raise ValueError(f"of the volume {tuple(img.shape)} no pixel is left to resize; crop less.")
        return super().__call__(img, *args, **kwargs)

    def inverse_transform(self, data: torch.Tensor, transform: dict[str, Any]) -> torch.Tensor:
        """Bring a volume back onto the grid that it was resized from.

        Args:
            data: volume (C, H, W, D).
            transform: what was recorded when it was resized; its interpolation is used, "nearest-exact" for "nearest".

        Returns:
            Volume (C, H, W, D) of the earlier size.
        """
        recorded = dict(transform[TraceKeys.EXTRA_INFO])
        if recorded["mode"] == InterpolateMode.NEAREST:
            recorded["mode"] = InterpolateMode.NEAREST_EXACT
        return super().inverse_transform(data, {**transform, TraceKeys.EXTRA_INFO: recorded})


class ResizeInPlaned(Resized):
    """Dictionary form of :class:`ResizeInPlane`.

    Args:
        keys: keys of the volumes (C, H, W, D).
        size: (H, W) of the slices in pixels.
        mode: interpolation, one for all keys or one a key.
        allow_missing_keys: whether an absent volume is passed over.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: Sequence[int],
        mode: SequenceStr = InterpolateMode.TRILINEAR,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, spatial_size=(*size, -1), mode=mode, allow_missing_keys=allow_missing_keys)
        self.resizer = ResizeInPlane(size)


ResizeInPlaneD = ResizeInPlaneDict = ResizeInPlaned
