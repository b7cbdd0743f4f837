# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import nibabel
import numpy as np
import torch
from monai.data.utils import orientation_ras_lps
from monai.transforms import Compose
from monai.utils import optional_import
from PIL import Image

from monai_fewshot.data.dicom.header import slices_of_file
from monai_fewshot.data.dicom.series_reader import ITK_LOCK
from monai_fewshot.data.files.nifti_files import is_nifti
from monai_fewshot.data.layouts.scan_files import is_picture, volume_suffix
from monai_fewshot.transforms import AlignAxes, AlignAxesd

__all__ = ["SliceEstimate", "Slices", "Transform", "estimate_slices"]

itk, has_itk = optional_import("itk")

BYTES_OF_INTENSITY, BYTES_OF_LABEL = 2, 2
"""Of half precision, and of up to 32,767 pseudo-labels; see :class:`~monai_fewshot.data.SliceStack`."""

Transform = Callable[[Any], Mapping[Hashable, torch.Tensor]]


class Slices(NamedTuple):
    """What a header tells: number of slices, pixels of each and channels."""

    number: int
    pixels: int
    channels: int


@dataclass(frozen=True)
class SliceEstimate:
    """What the headers of scans tell of their slices.

    Attributes:
        scans: of each scan; None where its header does not tell.
    """

    scans: tuple[Slices | None, ...]

    @property
    def known(self) -> list[Slices]:
        """Of the scans whose headers tell."""
        return [slices for slices in self.scans if slices is not None]

    def num_slices(self) -> int | None:
        """Number of all slices, scans whose header does not tell taken for average ones; None where none tells."""
        return self._total([slices.number for slices in self.known])

    def num_bytes(self, image_size: Sequence[int] | None = None) -> int | None:
        """Estimate the memory that all slices take.

        Args:
            image_size: (H, W) to which they are brought; None for their own.

        Returns:
            Bytes; None where no header tells.
        """
        return self._total(
            [
                slices.number
                * (slices.pixels if image_size is None else math.prod(image_size))
                * (slices.channels * BYTES_OF_INTENSITY + BYTES_OF_LABEL)
                for slices in self.known
            ]
        )

    def drawn(self, most: int, seed: int = 0) -> list[int]:
        """Draw scans at random as long as their slices are no more than a number.

        Whole scans are drawn, so that the slices of a scan, which share pseudo-labels, stay together, and no others
        need be read.

        Args:
            most: slices of all that are drawn.
            seed: of the draw.

        Returns:
            Indices of the scans, ascending.

        Raises:
            ValueError: where every scan has more slices, or one whose header does not tell its number.

        Example:
            >>> SliceEstimate((Slices(30, 64, 1), Slices(40, 64, 1), Slices(20, 64, 1), Slices(50, 64, 1))).drawn(100)
            [0, 2, 3]
        """
        numbers = [slices.number for slices in self.known]
        if len(numbers) < len(self.scans):
            raise ValueError(
                f"max_slices is {most}, but the headers of {len(self.scans) - len(numbers)} of {len(self.scans)} scans "
                "do not tell how many slices they have: convert them to NIfTI, or leave max_slices out."
            )
        if numbers and most < min(numbers):
            raise ValueError(
                f"max_slices is {most}, but whole scans are drawn, and the smallest has {min(numbers)} slices: give at "
                "least as many."
            )
        drawn, total = [], 0
        for index in np.random.RandomState(seed).permutation(len(numbers)).tolist():
            if total + numbers[index] <= most:
                drawn.append(index)
                total += numbers[index]
        return sorted(drawn)

    def of_scans(self, indices: Sequence[int]) -> SliceEstimate:
        """The estimate of some of the scans."""
        return SliceEstimate(tuple(self.scans[index] for index in indices))

    def _total(self, values: Sequence[int]) -> int | None:
        return math.ceil(sum(values) * len(self.scans) / len(values)) if values else None


def estimate_slices(scans: Sequence[Mapping[Hashable, Any]], transform: Transform | None = None) -> SliceEstimate:
    """Tell from headers how many slices scans have; their voxels are not read.

    Args:
        scans: scans with ``image``: the path of NIfTI, NRRD, MetaImage or a picture, the files of a DICOM series, or an
            array (C, H, W[, D]).
        transform: of the scans, which may align their axes (:class:`~monai_fewshot.transforms.AlignAxesd`). Changes of
            spacing and size are not taken into account.
    """
    align = next((step.transform for step in _steps(transform) if isinstance(step, AlignAxesd)), None)
    with ThreadPoolExecutor(8) as pool:
        return SliceEstimate(tuple(pool.map(lambda scan: _of_scan(scan["image"], align), scans)))


def _steps(transform: Transform | None) -> Sequence[Any]:
    return transform.flatten().transforms if isinstance(transform, Compose) else ()


def _of_scan(image: Any, align: AlignAxes | None) -> Slices | None:
    if isinstance(image, torch.Tensor | np.ndarray):
        channels, height, width, depth = (*image.shape, 1)[:4]
        return Slices(depth, height * width, channels)
    try:
        channels, size, affine = _header(image)
    except Exception:  # whatever damage makes libraries raise, which reading the scan reports
        return None
    through = 2
    if align is not None and affine is not None:
        through = int(np.flatnonzero(align.order(affine)[:, 0] == 2)[0])
    return Slices(size[through], math.prod(size) // max(size[through], 1), channels)


def _header(image: Any) -> tuple[int, tuple[int, int, int], np.ndarray | None]:
    """Channels, size and affine of a file, the last None where it does not matter."""
    if isinstance(image, tuple):
        slices = slices_of_file(image[0])
        columns, rows = slices[0].size
        return 1, (columns, rows, max(len(image), len(slices))), None
    if is_picture(Path(image)):
        with Image.open(image) as picture:
            return 1 if len(picture.getbands()) < 3 else 3, (*picture.size, 1), None
    if is_nifti(image):
        nifti = cast(nibabel.Nifti1Image, nibabel.load(image))
        height, width, depth, channels = (*nifti.shape, 1, 1)[:4]
        return channels, (height, width, depth), nifti.affine
    if volume_suffix(Path(image)) and has_itk:
        with ITK_LOCK:
            return _header_by_itk(image)
    raise ValueError("the format has no header that is known here")


def _header_by_itk(image: str) -> tuple[int, tuple[int, int, int], np.ndarray]:
    io = itk.ImageIOFactory.CreateImageIO(image, itk.CommonEnums.IOFileMode_ReadMode)
    io.SetFileName(image)
    io.ReadImageInformation()
    size = [int(io.GetDimensions(axis)) if axis < io.GetNumberOfDimensions() else 1 for axis in range(3)]
    affine = np.eye(4)
    for axis in range(min(3, io.GetNumberOfDimensions())):
        direction = (*io.GetDirection(axis), 0, 0)[:3]
        affine[:3, axis] = np.asarray(direction) * io.GetSpacing(axis)
    return int(io.GetNumberOfComponents()), (size[0], size[1], size[2]), orientation_ras_lps(affine)
