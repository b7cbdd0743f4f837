# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nibabel
import numpy as np
from monai.config import DtypeLike, NdarrayOrTensor, PathLike
from monai.data import ImageWriter, PILWriter
from monai.data.utils import to_affine_nd
from monai.utils import convert_to_numpy
from PIL import Image

from monai_fewshot.data.files.nifti_files import nifti_mask

__all__ = ["ImageMaskWriter", "MaskWriter"]


class MaskWriter(ImageWriter):
    """Writes a volume of one channel as a NIfTI file on its own grid, for ``SaveImage(writer=MaskWriter)``.

    MONAI's ``NibabelWriter`` drops trailing axes of length 1, so that the mask of a single slice would lie on another
    grid than its scan, fails on coronal volumes, and leaves out the qform.

    Args:
        output_dtype: of the voxels.
        like: NIfTI file of the scan, whose qform, sform, their codes, units and pixdim the file takes over. Defaults to
            None: the affine says where it lies.
        stored_dtype: integers to which floating point voxels are scaled in the file. Defaults to None, as they are.
        kwargs: of no effect.
    """

    data_obj: Any

    def __init__(
        self,
        output_dtype: DtypeLike = np.uint8,
        like: PathLike | None = None,
        stored_dtype: DtypeLike | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(output_dtype=output_dtype, affine=None)
        self.like = like
        self.stored_dtype = stored_dtype

    def set_data_array(
        self, data_array: NdarrayOrTensor, channel_dim: int | None = 0, squeeze_end_dims: bool = False, **kwargs: Any
    ) -> None:
        """Take the voxels.

        Args:
            data_array: (1, H, W, D), or (H, W, D) without a ``channel_dim``.
            channel_dim: axis of the channel.
            squeeze_end_dims: of no effect, no axis is dropped but that of the channel.
            kwargs: of no effect.
        """
        voxels = convert_to_numpy(data_array).astype(self.output_dtype)
        self.data_obj = voxels if channel_dim is None else voxels.take(0, axis=channel_dim)

    def set_metadata(self, meta_dict: Mapping | None = None, resample: bool = True, **options: Any) -> None:
        """Take the affine.

        Args:
            meta_dict: with ``affine``.
            resample: of no effect, a mask is written as it lies.
            options: of no effect.
        """
        self.affine = to_affine_nd(3, convert_to_numpy((meta_dict or {})["affine"]).astype(float))

    def write(self, filename: PathLike, verbose: bool = False, **kwargs: Any) -> None:
        """Write the file.

        Args:
            filename: its path.
            verbose: of no effect.
            kwargs: of no effect.
        """
        image = nifti_mask(self.data_obj, self.affine, self.like)
        if self.stored_dtype is not None:
            image.set_data_dtype(self.stored_dtype)
        nibabel.save(image, filename)


class ImageMaskWriter(PILWriter):
    """Writes the mask of a 2D image as a PNG file with rows and columns in place, for ``SaveImage``.

    A mask of class 1 alone is written as 0 and 255, so that it can be seen; others with their numbers, whichever of
    them an image shows, in 16 bits where there are numbers above 255.

    Args:
        highest: class number that masks may hold; ``functools.partial(ImageMaskWriter, highest=2)`` is the writer of
            ``SaveImage`` for the classes 1 and 2.
        output_dtype: of no effect, the highest class number says it.
        kwargs: of no effect.

    Raises:
        ValueError: where a mask holds a number above ``highest``.
    """

    data_obj: Any

    def __init__(self, highest: int = 1, output_dtype: DtypeLike = np.uint8, **kwargs: Any) -> None:
        super().__init__(np.min_scalar_type(highest), channel_dim=None, scale=None)
        self.highest = highest

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
        shown = int(mask.max(initial=0))
        if shown > self.highest:
            raise ValueError(
                f"A mask holds class {shown}, but is to be written as one of classes up to {self.highest}: give "
                "ImageMaskWriter the highest class number, highest."
            )
        self.data_obj = mask * 255 if self.highest == 1 else mask

    def set_metadata(self, meta_dict: Mapping | None = None, resample: bool = True, **options: Any) -> None:
        """Do nothing: a mask keeps the size of its image."""

    def write(self, filename: PathLike, verbose: bool = False, **kwargs: Any) -> None:
        """Write the file.

        Args:
            filename: its path.
            verbose: of no effect.
            kwargs: of ``PIL.Image.Image.save``.
        """
        Image.fromarray(self.data_obj.astype(self.output_dtype)).save(filename)
