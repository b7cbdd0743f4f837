# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple, optional_import

from .header import DicomSlice
from .series import DicomSeries, find_series, in_space, read_series
from .series_checks import series_problems
from .series_files import SeriesFiles

__all__ = ["SeriesReader"]

logger = logging.getLogger(__name__)

pydicom, has_pydicom = optional_import("pydicom")
itk, has_itk = optional_import("itk")

FRAME_OF_REFERENCE, SERIES_NAME, THICKNESS = "frame_of_reference", "series_name", "slice_thickness"
ITK_LOCK = threading.Lock()
"""Held while within ITK, which changes the working folder of the process as it loads its parts."""


class SeriesReader(ImageReader):
    """Reads one DICOM series from its files for ``monai.transforms.LoadImage``.

    Give it when loading, not when making ``LoadImage``, which would try its other readers on a series that is refused.

    Slices are ordered by their positions along the normal of their planes, whatever files are called and instances
    numbered, each is rescaled by its own slope and intercept, and the affine comes from the positions of all, so that a
    tilted gantry shears the grid. Enhanced multi-frame files are read like files of one frame. Meta-data hold the grid
    and the frame of reference, nothing of the patient.

    Deviation: MONAI's ``PydicomReader`` orders slices by instance number, which places them wrongly where that does not
    follow their positions; its ``ITKReader`` loses a tilted gantry's shear and the fractions of slopes that differ from
    slice to slice, takes a list of files for channels, and keeps the patient's attributes of a single slice.

    Pixels are decoded by pydicom, and by ITK where pydicom lacks a decoder, as for JPEG 2000 and lossless JPEG. Values
    that are meant to be bright where they are low (MONOCHROME1) are inverted within their range of bits, as ITK does.

    Args:
        frames: which frames of each file are read, see :class:`SeriesFiles`; empty for all.

    Example:
        >>> from monai.transforms import LoadImage
        >>> load = LoadImage(ensure_channel_first=True)  # load(["IM1", "IM2", ...], reader=SeriesReader())
    """

    def __init__(self, frames: Sequence[Sequence[int]] = ()) -> None:
        super().__init__()
        self.frames = frames

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Tell whether pydicom is there to read files, whatever they are called.

        Args:
            filename: of no effect.
        """
        return has_pydicom

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> DicomSeries:
        """Read the headers.

        Args:
            data: the files of one series in any order, or a folder that holds one and nothing else of DICOM.
            kwargs: of no effect.

        Returns:
            The series, which is sound.

        Raises:
            ValueError: where there is no series or several, or it is not sound; all problems are listed.
        """
        paths = ensure_tuple(data)
        tree = find_series(paths[0]) if len(paths) == 1 and os.path.isdir(paths[0]) else read_series(paths)
        found = tree.series
        if self.frames:
            meant = SeriesFiles(map(os.fspath, paths), self.frames)
            found = (DicomSeries(in_space([each for series in found for each in series.slices if meant.holds(each)])),)
        problems = [f"{len(tree.unreadable)} files cannot be read; copy them again."] if tree.unreadable else []
        if len(found) != 1:
            problems.append(f"there are {len(found)} series in {len(paths)} path(s); choose one.")
        problems += [f"{series.name}: {problem}" for series in found for problem in series_problems(series)]
        if problems:
            raise ValueError("\n".join(problems))
        return found[0]

    def get_data(self, img: DicomSeries) -> tuple[np.ndarray, dict[str, Any]]:
        """Read the pixels.

        Args:
            img: as :meth:`read` returns it.

        Returns:
            Voxels (columns, rows, slices), float32, and meta-data.

        Raises:
            ValueError: where pixels cannot be decoded; the text tells the slice, and neither it nor a cause a file.
        """
        if len(img.slices) == 1 and not img.slices[0].thickness:
            logger.warning("%s is one slice without SliceThickness: it counts as 1 mm thick in all volumes", img.name)
        voxels = np.empty(img.shape[::-1], np.float32)
        index = 0
        for file, slices in groupby(img.slices, key=lambda slice_: slice_.file):
            frames = list(slices)
            try:
                _read_frames(file, frames, voxels[index : index + len(frames)])
            except Exception as error:
                raise ValueError(f"{img.name}: slice {index + 1} of {len(voxels)} {_reason(error)}") from None
            index += len(frames)
        return voxels.transpose(2, 1, 0), {
            MetaKeys.AFFINE: img.affine,
            MetaKeys.ORIGINAL_AFFINE: img.affine,
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.array(img.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
            FRAME_OF_REFERENCE: img.frame_of_reference,
            **({THICKNESS: img.slices[0].thickness} if img.slices[0].thickness else {}),
            SERIES_NAME: img.name,
        }


def _read_frames(file: str, frames: Sequence[DicomSlice], voxels: np.ndarray) -> None:
    """Write the frames of a file into ``voxels`` (frames, rows, columns)."""
    ds = pydicom.dcmread(file, force=True)
    if "PixelData" not in ds:
        raise LookupError("holds no pixels: it is encrypted, truncated or of a kind that is not supported")
    if "TransferSyntaxUID" not in ds.file_meta:
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    try:
        stored = ds.pixel_array
    except (RuntimeError, NotImplementedError):
        if not has_itk:
            raise
        voxels[:] = _read_by_itk(file)[[frame.frame or 0 for frame in frames]]
        return
    stored = stored.reshape(-1, *stored.shape[-2:])
    for frame, target in zip(frames, voxels, strict=True):
        np.multiply(_as_meant(stored[frame.frame or 0], frame, ds), frame.slope, out=target, casting="unsafe")
        target += frame.intercept


def _as_meant(stored: np.ndarray, slice_: DicomSlice, ds: Any) -> np.ndarray:
    if not slice_.is_inverted:
        return stored
    highest = 2.0**ds.BitsStored - 1
    return (-1.0 if ds.PixelRepresentation else highest) - stored


def _read_by_itk(file: str) -> np.ndarray:
    with ITK_LOCK:
        image = itk.array_from_image(itk.imread(file, itk.F))
    return image.reshape(-1, *image.shape[-2:])


def _reason(error: Exception) -> str:
    if isinstance(error, LookupError):
        return f"{error.args[0]}. Copy or export the series again."
    return (
        f"cannot be decoded ({type(error).__name__}): its pixels are damaged, or compressed in a way that needs "
        'another package, pip install "monai_fewshot[all]".'
    )
