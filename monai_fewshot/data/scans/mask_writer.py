# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from monai.config import DtypeLike, NdarrayOrTensor, PathLike
from monai.data import NibabelWriter, PILWriter
from monai.utils import convert_to_numpy
from PIL import Image

__all__ = ["ImageMaskWriter", "MaskWriter"]


class MaskWriter(NibabelWriter):
    """Writes a volume of one channel as a NIfTI file of three axes, for ``SaveImage(writer=MaskWriter)``.

    MONAI's writer drops trailing axes of length 1, so that the mask of a single slice would lie on another grid than
    its scan.
    """

    data_obj: Any

    def set_data_array(
        self,
        data_array: NdarrayOrTensor,
        channel_dim: int | None = 0,
        squeeze_end_dims: bool = False,
        **kwargs: Any,
    ) -> None:
        """Take the voxels.

        Args:
            data_array: (1, H, W, D), or (H, W, D) without a ``channel_dim``.
            channel_dim: axis of the channel.
            squeeze_end_dims: of no effect, no axis is dropped but that of the channel.
            kwargs: see ``monai.data.NibabelWriter``.
        """
        super().set_data_array(data_array, channel_dim, squeeze_end_dims=False, **kwargs)
        self.data_obj = self.data_obj[..., 0]


class ImageMaskWriter(PILWriter):
    """Writes the mask of a 2D image as a PNG file with rows and columns in place, for ``SaveImage``.

    A mask of one class is written as 0 and 255, so that it can be seen; of several, with their numbers, whichever of
    them an image shows.

    Args:
        num_classes: number of classes that masks may hold; ``functools.partial(ImageMaskWriter, num_classes=2)`` is
            the writer of ``SaveImage`` for two.
        output_dtype: of no effect, masks have 8 bits.
        kwargs: of no effect.

    Raises:
        ValueError: where a mask holds a number above ``num_classes``.
    """

    data_obj: Any

    def __init__(self, num_classes: int = 1, output_dtype: DtypeLike = np.uint8, **kwargs: Any) -> None:
        super().__init__(np.uint8, channel_dim=None, scale=None)
        self.num_classes = num_classes

    def set_data_array(
        self,
        data_array: NdarrayOrTensor,
        channel_dim: int | None = 0,
        squeeze_end_dims: bool = True,
        contiguous: bool = False,
    ) -> None:
        """Take the pixels.

        Args:
            data_array: (1, H, W, 1), class numbers.
            channel_dim: axis of the channel; of no effect.
            squeeze_end_dims: of no effect.
            contiguous: of no effect.
        """
        mask = convert_to_numpy(data_array).reshape(data_array.shape[1:3])
        highest = int(mask.max(initial=0))
        if highest > self.num_classes:
            raise ValueError(
                f"A mask holds class {highest}, but is to be written as one of {self.num_classes} class(es): give "
                "ImageMaskWriter their number, num_classes."
            )
        self.data_obj = mask * 255 if self.num_classes == 1 else mask

    def set_metadata(self, meta_dict: Mapping | None = None, resample: bool = True, **options: Any) -> None:
        """Do nothing: a mask keeps the size of its image."""

    def write(self, filename: PathLike, verbose: bool = False, **kwargs: Any) -> None:
        """Write the file.

        Args:
            filename: its path.
            verbose: of no effect.
            kwargs: of ``PIL.Image.Image.save``.
        """
        Image.fromarray(self.data_obj.astype(np.uint8)).save(filename)
