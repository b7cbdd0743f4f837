# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.utils import ensure_tuple, optional_import

from .image_kind import image_kind

__all__ = ["DicomSlice", "is_dicom", "slices_of", "slices_of_file"]

pydicom, _ = optional_import("pydicom")

DICOM_SUFFIXES = (".dcm", ".ima")
NOT_DICOM_SUFFIXES = (".nii", ".gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".json", ".png", ".jpg", ".zip")
DIRECTORY_STORAGE = "1.2.840.10008.1.3.10"
DEFLATED = "1.2.840.10008.1.2.1.99"
VARIANTS = (
    ("EchoTime", "EffectiveEchoTime"),
    ("FrameType", "ImageType"),
    ("TemporalPositionIdentifier", "TemporalPositionIndex"),
    ("DiffusionBValue",),
    ("TriggerTime", "NominalCardiacTriggerDelayTime"),
    ("AcquisitionNumber", "FrameAcquisitionNumber"),
    ("DiffusionGradientOrientation",),
    ("DiffusionDirectionality",),
    ("EchoNumbers",),
    ("InversionTime", "InversionTimes"),
    ("FlipAngle",),
    ("ComplexImageComponent",),
    ("SequenceName",),
    ("ConvolutionKernel",),
    ("AcquisitionTime",),
)
"""Attributes by which the images of one series may belong to several volumes, each under one of its names."""

TAGS = (
    "SOPInstanceUID",
    "Modality",
    "SeriesDescription",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "NumberOfFrames",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "SOPClassUID",
    "PhotometricInterpretation",
    *chain.from_iterable(VARIANTS),
)


@dataclass(frozen=True)
class DicomSlice:
    """What the header of a DICOM file tells of one image: a file, or one frame of a file with many.

    Args:
        file: path of the file.
        frame: number of the frame, from 0; None for a file of one image.
        instance_uid: SOPInstanceUID, which only copies of a file share.
        series_uid: SeriesInstanceUID.
        frame_of_reference: FrameOfReferenceUID, "" where there is none.
        modality: e.g. ``"MR"``.
        description: SeriesDescription.
        size: numbers of columns and rows; empty for what is no image, such as a report.
        spacing: mm between columns and between rows; empty where it is unknown or not above 0.
        thickness: SliceThickness in mm; None where it is unknown or not above 0.
        step: SpacingBetweenSlices in mm, likewise.
        orientation: direction cosines of column index and row index in LPS, six numbers; empty likewise.
        position: LPS coordinates in mm of the first voxel's center; empty likewise.
        slope: by which stored values are multiplied.
        intercept: what is added then.
        kind: what it is where it is no gray slice of a volume, see :func:`image_kind`; else empty.
        is_inverted: whether low values are meant to be bright (MONOCHROME1).
        is_truncated: whether the file is too short for its pixels; only known where they are not compressed.
        stack: StackID of a frame, "" where there is none.
        variant: values of the attributes :data:`VARIANTS`, as text, and the indices of a frame's dimensions.
    """

    file: str = field(repr=False)
    frame: int | None
    instance_uid: str
    series_uid: str
    frame_of_reference: str
    modality: str
    description: str = field(repr=False)
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    thickness: float | None
    step: float | None
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    slope: float
    intercept: float
    kind: str
    is_inverted: bool
    is_truncated: bool
    stack: str
    variant: tuple[str, ...]


def is_dicom(file: Path) -> bool:
    """Tell whether a file is DICOM by its suffix or first bytes; one that cannot be opened may be."""
    suffix = file.suffix.lower()
    if suffix in DICOM_SUFFIXES or suffix in NOT_DICOM_SUFFIXES or not file.is_file():
        return suffix in DICOM_SUFFIXES and file.is_file()
    try:
        with open(file, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return True


def slices_of_file(file: PathLike) -> list[DicomSlice]:
    """Read the header of a DICOM file, not its pixels.

    Args:
        file: path of the file, with a preamble or without.

    Returns:
        One item, or one for each frame of a file with many; none for a DICOMDIR.

    Raises:
        ValueError: where the file is not DICOM inside; the text does not name it.
    """
    try:
        ds = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(TAGS))
        storage = ds.file_meta.get("MediaStorageSOPClassUID") if hasattr(ds, "file_meta") else None
        slices = [] if storage == DIRECTORY_STORAGE else slices_of(ds, file)
    except Exception as error:
        raise ValueError(f"cannot be read ({type(error).__name__})") from None
    if not slices and storage != DIRECTORY_STORAGE:
        raise ValueError("has no SeriesInstanceUID")
    return slices


def slices_of(ds: Any, file: PathLike) -> list[DicomSlice]:
    """Take from a pydicom data set what a volume is built from.

    Args:
        ds: ``pydicom.Dataset``, with or without pixels.
        file: its path.

    Returns:
        As :func:`slices_of_file`; none where there is no SeriesInstanceUID.
    """
    if not ds.get("SeriesInstanceUID"):
        return []
    if not ds.get("PerFrameFunctionalGroupsSequence"):
        return [_slice(ds, file, None, [ds])]
    shared = ds.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
    return [
        _slice(ds, file, number, [*_macros(groups), *_macros(shared[0]), ds])
        for number, groups in enumerate(ds.PerFrameFunctionalGroupsSequence)
    ]


def _macros(groups: Any, depth: int = 2) -> Iterator[Any]:
    """The items of functional groups, and those within them, such as the gradient of a diffusion."""
    for element in groups:
        if element.VR == "SQ" and element.value and depth:
            yield element.value[0]
            yield from _macros(element.value[0], depth - 1)


def _slice(ds: Any, file: PathLike, frame: int | None, places: Sequence[Any]) -> DicomSlice:
    """Look attributes up where they may stand: in a frame's own groups, in the shared ones, in the data set."""

    def first(*names: str) -> Any:
        held = (place[name].value for place in places for name in names if name in place)
        return next((value for value in held if value is not None), None)

    slope, intercept = first("RescaleSlope"), first("RescaleIntercept")
    image_type = [str(word).upper() for word in _words(first("FrameType", "ImageType"))]
    has_image = bool(ds.get("Rows")) and bool(ds.get("Columns"))
    return DicomSlice(
        file=os.fspath(file),
        frame=frame,
        instance_uid=str(ds.get("SOPInstanceUID") or file),
        series_uid=str(ds.SeriesInstanceUID),
        frame_of_reference=str(ds.get("FrameOfReferenceUID") or ""),
        modality=str(ds.get("Modality") or ""),
        description=str(ds.get("SeriesDescription") or ""),
        size=(int(ds.Columns), int(ds.Rows)) if has_image else (),
        spacing=_lengths(_numbers(first("PixelSpacing"), 2)[::-1]),
        thickness=next(iter(_lengths(_numbers([first("SliceThickness")], 1))), None),
        step=next(iter(_lengths(_numbers([first("SpacingBetweenSlices")], 1))), None),
        orientation=_numbers(first("ImageOrientationPatient"), 6),
        position=_numbers(first("ImagePositionPatient"), 3),
        slope=1.0 if slope in (None, "") else float(slope),
        intercept=0.0 if intercept in (None, "") else float(intercept),
        kind=image_kind(ds, image_type, frame) if has_image else "",
        is_inverted=ds.get("PhotometricInterpretation") == "MONOCHROME1",
        is_truncated=has_image and _is_truncated(ds, file),
        stack=str(first("StackID") or ""),
        variant=tuple(map(str, (*(first(*names) for names in VARIANTS), *_words(first("DimensionIndexValues"))))),
    )


def _words(value: Any) -> Sequence[Any]:
    return () if value is None else ensure_tuple(value)


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    if values is None or len(values) != count or any(value in (None, "") for value in values):
        return ()
    return tuple(float(value) for value in values)


def _lengths(values: tuple[float, ...]) -> tuple[float, ...]:
    return values if all(0 < value < float("inf") for value in values) else ()


def _is_truncated(ds: Any, file: PathLike) -> bool:
    syntax = ds.file_meta.get("TransferSyntaxUID") if hasattr(ds, "file_meta") else None
    if syntax is None or syntax.is_encapsulated or syntax == DEFLATED:
        return False
    pixels = ds.Rows * ds.Columns * int(ds.get("SamplesPerPixel") or 1) * int(ds.get("NumberOfFrames") or 1)
    return os.path.getsize(file) < pixels * int(ds.get("BitsAllocated") or 8) // 8
