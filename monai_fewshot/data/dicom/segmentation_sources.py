# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from monai.config import PathLike
from monai.utils import ensure_tuple, optional_import

from .header import DicomSlice, is_dicom, slices_of
from .series import find_series
from .series_files import SeriesFiles

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["IDENTIFIERS", "source_files", "source_headers", "source_problems"]

pydicom, _ = optional_import("pydicom")

IDENTIFIERS = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
"""What DICOM demands of every object of a study: these alone go from the source into the file, and nowhere else."""

GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")
FRAMES = ("NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
REFERENCES = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
OTHERS = ("SpecificCharacterSet", "Modality", "SliceThickness", "SpacingBetweenSlices", "Manufacturer")


def source_files(image: PathLike | Sequence[PathLike]) -> SeriesFiles:
    """List the files of a scan that is a DICOM series.

    Args:
        image: folder of the series, or its files.

    Returns:
        The files; none for a scan of another format.
    """
    if isinstance(image, SeriesFiles):
        return image
    paths = ensure_tuple(image)
    if len(paths) == 1 and os.path.isdir(paths[0]):
        return SeriesFiles(file for series in find_series(paths[0]).series for file in series.files)
    return SeriesFiles(map(os.fspath, paths) if all(is_dicom(Path(path)) for path in paths) else ())


def source_headers(files: SeriesFiles) -> tuple[list[Dataset], list[DicomSlice]]:
    """Read what a segmentation takes from the headers of its source series.

    Args:
        files: of the series.

    Returns:
        The headers of the files, and all their images, those of other volumes too.

    Raises:
        OSError: where a file cannot be read.
    """
    tags = [*IDENTIFIERS, *GEOMETRY, *FRAMES, *REFERENCES, *OTHERS]
    sources = [pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags, force=True) for file in files]
    return sources, [each for source, file in zip(sources, files, strict=True) for each in slices_of(source, file)]


def source_problems(sources: Sequence[Dataset], slices: Sequence[DicomSlice]) -> list[str]:
    """Find what keeps a DICOM segmentation from referring to a series.

    Args:
        sources: as :func:`source_headers` returns them.
        slices: likewise.

    Returns:
        One text each, which says what to do and holds nothing of the patient.
    """
    lacking = [name for name in REFERENCES if any(not source.get(name) for source in sources)]
    if not all(each.position and each.orientation and each.spacing and each.size for each in slices):
        lacking.append("the place of its images")
    if not slices or lacking:
        return [
            f"The source series of {len(sources)} file(s) lacks {', '.join(lacking) or 'images'}, which a DICOM "
            "segmentation refers to. Give a series as the scanner sent it, or write NIfTI."
        ]
    problems = []
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        number = len({source[name].value for source in sources})
        if number > 1:
            problems.append(
                f"The source files are of {number} different {name}s: give the files of one series, or write NIfTI."
            )
    shared = len(sources) - len({source.SOPInstanceUID for source in sources})
    if len(sources) > 1 and len(slices) > len(sources):
        problems.append(
            f"The source series has {len(slices)} frames in {len(sources)} files: a DICOM segmentation refers to one "
            "multi-frame file, or to files of one frame each. Write NIfTI."
        )
    elif shared:
        problems.append(
            f"{shared} of {len(sources)} source files have the SOPInstanceUID of another one, so that a DICOM "
            "segmentation cannot tell them apart. Give a series as the scanner sent it, or write NIfTI."
        )
    return problems
