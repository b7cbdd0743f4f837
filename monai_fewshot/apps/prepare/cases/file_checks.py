# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import nibabel as nib
import numpy as np
import torch
from monai.data.utils import orientation_ras_lps
from monai.utils import optional_import
from numpy.typing import NDArray

from monai_fewshot.data.files.file_damage import check_gzip, unreadable
from monai_fewshot.data.layouts.scan_files import VOLUME_SUFFIXES
from monai_fewshot.data.scans.check_scan import AFFINE_TOLERANCE, corner_distance
from monai_fewshot.data.scans.check_scans import check_nifti_header

from .case import Case, Problem

__all__ = ["VolumeHeader", "check_files", "read_header"]

NIFTI_SUFFIXES = (".nii", ".nii.gz")
itk, has_itk = optional_import("itk")


class VolumeHeader(NamedTuple):
    """What the header of a file says of its volume.

    Args:
        size: voxels by axis, channels or time points last where there are some.
        affine: from voxels to millimeters in RAS, 4 x 4.
    """

    size: tuple[int, ...]
    affine: NDArray[np.float64]


def check_files(cases: Sequence[Case]) -> list[Problem]:
    """Find what is wrong with the files of a data set as far as it shows without reading voxels, in seconds.

    That is: names that are no file names, files that are missing, empty, truncated, of unreadable header or of colors,
    and labels that do not lie on the grid of their image, where both are one file.

    Args:
        cases: the scans.

    Returns:
        The problems, by scan in the order given.
    """
    return [problem for case in cases for problem in _case_problems(case)]


def read_header(path: Path) -> VolumeHeader | None:
    """Read the header of a volume.

    Args:
        path: a file.

    Returns:
        The header, or None for a file that is no volume, such as a picture or a slice of a series, and for NRRD and
        MetaImage files where ITK is not installed.

    Raises:
        ValueError: where the header cannot be read.
    """
    name = path.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        check_nifti_header(path)
        image = cast(nib.Nifti1Image, nib.load(path))
        return VolumeHeader(image.shape, cast(NDArray[np.float64], image.affine))
    if not name.endswith(VOLUME_SUFFIXES) or not has_itk:
        return None
    try:
        return _itk_header(path)
    except Exception as error:
        raise ValueError(unreadable(path, error)) from error


def _case_problems(case: Case) -> Iterator[Problem]:
    if not case.image:
        yield Problem(case.name, None, "has no image; add its files, or leave it out.")
    if Path(case.name).name != case.name or case.name.startswith("."):
        yield Problem(case.name, None, "is no name for a file; name the scan by letters, digits, '_', '-' and '.'.")
    broken = False
    for path in case.files:
        if text := _file_problem(path):
            broken = True
            yield Problem(case.name, path, text)
    if not broken and len(case.image) == len(case.label) == 1 and (text := _grid_problem(*case.image, *case.label)):
        yield Problem(case.name, case.label[0], text)


def _file_problem(path: Path) -> str:
    if not path.is_file():
        return "is missing; download or copy it again."
    if not path.stat().st_size:
        return "is empty; download or copy it again."
    try:
        header = read_header(path)
    except ValueError as error:
        return str(error)
    if header is not None and math.prod(header.size) == 0:
        return f"has no voxels, its size is {header.size}; export it again."
    return "" if _is_complete(path) else "is truncated: it ends before its last voxel. Download or copy it again."


def _is_complete(path: Path) -> bool:
    """Compare the size of a NIfTI file with its header; that of a compressed one stands in its last four bytes.

    A file packed in several parts has only the last one's size there; it is read to its end.
    """
    name = path.name.lower()
    if not name.endswith(NIFTI_SUFFIXES):
        return True
    header = cast(nib.Nifti1Image, nib.load(path)).header
    expected = int(header["vox_offset"]) + math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
    if not name.endswith(".gz"):
        return path.stat().st_size >= expected
    with open(path, "rb") as stream:
        stream.seek(-4, 2)
        unpacked = int.from_bytes(stream.read(4), "little")
    if unpacked == expected % 2**32:
        return True
    try:
        check_gzip(path)
    except ValueError:
        return False
    return True


def _grid_problem(image: Path, label: Path) -> str:
    grid, own = read_header(image), read_header(label)
    if grid is None or own is None:
        return ""
    remedy = "take the label that was drawn on this image, or resample it onto the image."
    if own.size[:3] != grid.size[:3]:
        return f"has {own.size[:3]} voxels, but its image {image} {grid.size[:3]}; {remedy}"
    distance = corner_distance(torch.from_numpy(grid.affine), torch.from_numpy(own.affine), grid.size[:3])
    if distance <= AFFINE_TOLERANCE:
        return ""
    return f"lies up to {distance:.3g} mm away from its image {image}, as their affines differ; {remedy}"


def _itk_header(path: Path) -> VolumeHeader:
    reader = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if reader is None:
        raise ValueError("ITK knows no such format")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    axes = range(reader.GetNumberOfDimensions())
    affine = np.eye(4)
    for axis in axes[:3]:
        column = np.multiply(reader.GetDirection(axis), reader.GetSpacing(axis))[:3]
        affine[: len(column), axis], affine[axis, 3] = column, reader.GetOrigin(axis)
    return VolumeHeader(tuple(reader.GetDimensions(axis) for axis in axes), orientation_ras_lps(affine))
