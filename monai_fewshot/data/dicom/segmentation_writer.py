# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.config import PathLike
from monai.data import MetaTensor
from monai.data.utils import orientation_ras_lps
from monai.utils import OptionalImportError, convert_to_numpy, optional_import

import monai_fewshot
from monai_fewshot.utils import later_import, write_atomically

from .header import DicomSlice
from .segment_codes import PRIVATE_SCHEME, SegmentCode, segment_code
from .segmentation_sources import IDENTIFIERS, source_headers, source_problems
from .series_files import SeriesFiles

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["write_dicom_seg"]

HINT = "A DICOM segmentation needs highdicom: pip install monai_fewshot[dicom], or leave dicom_seg out of the outputs."
highdicom, has_highdicom = later_import("highdicom")
coding_schemes, _ = later_import("highdicom.coding_schemes")
pydicom, _ = optional_import("pydicom")
codedict, _ = later_import("pydicom.sr.codedict")

SERIES_NUMBER = 1000
UTF_8 = "ISO_IR 192"
OFF_GRID = 0.25


def write_dicom_seg(
    label: MetaTensor,
    source_files: Sequence[PathLike],
    class_names: Mapping[int, str],
    path: PathLike,
    own_codes: Mapping[str, SegmentCode] | None = None,
    algorithm_name: str = "monai_fewshot",
    algorithm_version: str = monai_fewshot.__version__,
) -> Path:
    """Write a label map as a DICOM segmentation (SEG, binary) of the series that it was made of.

    Each slice of the label map is put on the source instance that lies there, by its position in space: the order of
    the files, the order and direction of the label map's axes play no part. The file references the source instances,
    and names every class, those that are not found too, with its code (:func:`monai_fewshot.data.segment_code`) and the
    algorithm. DICOM numbers segments from 1 without gaps: they stand in the order of their class numbers, which are
    the segments' descriptions.

    Patient and study are those of the source, which DICOM demands, in UTF-8 whatever the source is written in; of the
    source's header nothing else is copied, and none of it appears in errors, warnings or logs.

    Args:
        label: (1, H, W, D) or (H, W, D) class numbers, with the affine of the series as MONAI's ``LoadImage`` reads it.
        source_files: of one series, in any order: images of one frame each, or one multi-frame file. Of one that holds
            several volumes, :class:`SeriesFiles` name the frames.
        class_names: names of the classes by number.
        path: the file.
        own_codes: codes by name of the class that go before ours.
        algorithm_name: what made the label map, up to 64 characters.
        algorithm_version: its version.

    Returns:
        The path.

    Raises:
        OptionalImportError: without highdicom.
        ValueError: where classes have no name, the series lacks what a segmentation refers to, or its slices do not lie
            on the grid of the label map.
    """
    check_highdicom()
    voxels = convert_to_numpy(label)
    voxels = voxels[0] if voxels.ndim == 4 else voxels
    numbers = sorted(class_names)
    _check_classes(voxels, numbers)
    files = source_files if isinstance(source_files, SeriesFiles) else SeriesFiles(map(os.fspath, source_files))
    sources, slices = source_headers(files)
    if problems := source_problems(sources, slices):
        raise ValueError("\n".join(problems))
    if files.frames:
        slices = _take_frames(sources[0], slices, files)
    segments = np.searchsorted([0, *numbers], voxels)
    planes = _planes(segments, convert_to_numpy(label.affine).astype(float), slices)
    own = [segment_code(class_names[number], own_codes) for number in numbers]
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=algorithm_name[:64], family=codedict.codes.DCM.ArtificialIntelligence, version=algorithm_version[:64]
    )
    with _identifiers_apart(sources) as identifiers:
        segmentation = highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=planes,
            segmentation_type="BINARY",
            segment_descriptions=[
                _segment(place, number, class_names[number], code, algorithm)
                for place, (number, code) in enumerate(zip(numbers, own, strict=True), start=1)
            ],
            series_instance_uid=highdicom.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="monai_fewshot",
            manufacturer_model_name=algorithm_name[:64],
            software_versions=algorithm_version[:64],
            device_serial_number=monai_fewshot.__version__,
            omit_empty_frames=bool(planes.any()),
            content_label="SEGMENTATION",
            series_description=f"Segmentation by {algorithm_name}"[:64],
            coding_schemes=_private_schemes(own),
        )
        segmentation.SpecificCharacterSet = UTF_8
        if files.frames:
            _number_frames(segmentation, slices)
        for keyword, value in identifiers.items():
            setattr(segmentation, keyword, value)
        buffer = io.BytesIO()
        segmentation.save_as(buffer, enforce_file_format=True)
    return write_atomically(path, buffer.getvalue())


def check_highdicom() -> None:
    """Raise an OptionalImportError where highdicom is not installed."""
    if not has_highdicom:
        raise OptionalImportError(HINT)


def _private_schemes(segment_codes: Iterable[SegmentCode]) -> list[Any] | None:
    if not any(code.is_private for code in segment_codes):
        return None
    return [
        coding_schemes.CodingSchemeIdentificationItem(
            PRIVATE_SCHEME, name="Classes of monai_fewshot without a public code"
        )
    ]


def _check_classes(voxels: np.ndarray, numbers: Sequence[int]) -> None:
    found = set(np.unique(voxels).tolist()) - {0}
    if not numbers or min(numbers) < 1 or not found <= set(numbers):
        raise ValueError(
            f"The label map holds the classes {sorted(found)}, and names are given for {numbers}: name all of its "
            "classes, class_names."
        )


def _planes(voxels: np.ndarray, affine: np.ndarray, slices: Sequence[DicomSlice]) -> np.ndarray:
    """Take the slice of each source image, (images, rows, columns), out of the label map."""
    planes = [voxels[_indices(voxels.shape, affine, slice_)] for slice_ in slices]
    covered = sum(np.count_nonzero(plane) for plane in planes)
    if covered != np.count_nonzero(voxels):
        raise ValueError(
            f"Of {np.count_nonzero(voxels)} voxels of the mask, {covered} lie on the {len(slices)} images of the "
            "source series: give all its files, each once."
        )
    return np.stack(planes).astype(np.uint8 if voxels.max(initial=0) < 256 else np.uint16)


def _take_frames(source: Dataset, slices: Sequence[DicomSlice], files: SeriesFiles) -> list[DicomSlice]:
    """Leave only the frames of one volume in the header of a multi-frame file, and return them."""
    own = [slice_ for slice_ in slices if files.holds(slice_)]
    groups = source.PerFrameFunctionalGroupsSequence
    source.PerFrameFunctionalGroupsSequence = [groups[slice_.frame] for slice_ in own]
    source.NumberOfFrames = len(own)
    return own


def _number_frames(segmentation: Dataset, slices: Sequence[DicomSlice]) -> None:
    """Refer to frames by their numbers in the whole file, from 1."""
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        for derivation in groups.DerivationImageSequence:
            for reference in derivation.SourceImageSequence:
                reference.ReferencedFrameNumber = (slices[reference.ReferencedFrameNumber - 1].frame or 0) + 1


def _indices(shape: Sequence[int], affine: np.ndarray, slice_: DicomSlice) -> tuple[np.ndarray, ...]:
    """Find the voxel of each pixel, three arrays that broadcast to (rows, columns)."""
    to_voxels = np.linalg.inv(orientation_ras_lps(affine))
    columns, rows = slice_.size
    along_row, along_column = np.reshape(slice_.orientation, (2, 3)) * np.reshape(slice_.spacing, (2, 1))
    start = to_voxels @ [*slice_.position, 1]
    steps = to_voxels[:3, :3] @ np.stack([along_column, along_row], axis=1)
    whole_start, whole_steps = np.rint(start[:3]), np.rint(steps)
    corners = [np.array([row, column]) for row in (0, rows - 1) for column in (0, columns - 1)]
    ends = np.stack([whole_start + whole_steps @ corner for corner in corners])
    error = max(np.abs(start[:3] - whole_start + (steps - whole_steps) @ corner).max() for corner in corners)
    if error > OFF_GRID or np.abs(whole_steps).sum() != 2 or (ends < 0).any() or (ends >= np.array(shape)).any():
        raise ValueError(
            f"An image of the source series ({rows} rows, {columns} columns) does not lie on the grid of the mask "
            f"{tuple(shape)}: give the files of the series that was segmented, and bring the mask back to the series' "
            "own grid (monai.transforms.Invertd) where it was prepared."
        )
    row, column = np.arange(rows)[:, None], np.arange(columns)[None]
    first, second, third = (
        (whole_start[axis] + whole_steps[axis, 0] * row + whole_steps[axis, 1] * column).astype(int)
        for axis in range(3)
    )
    return first, second, third


def _segment(place: int, number: int, name: str, code: SegmentCode, algorithm: Any) -> Any:
    segment = highdicom.seg.SegmentDescription(
        segment_number=place,
        segment_label=name[:64],
        segmented_property_category=code.category,
        segmented_property_type=code.type,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )
    segment.SegmentDescription = f"Class {number}"
    if code.side is not None:
        side = highdicom.sr.CodedConcept.from_code(code.side)
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    return segment


@contextmanager
def _identifiers_apart(sources: Sequence[Dataset]) -> Iterator[dict[str, Any]]:
    """Take patient and study out of the headers: libraries print values that they find odd, and log UIDs."""
    logger = logging.getLogger("highdicom")
    level = logger.level
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        identifiers = {keyword: str(sources[0].get(keyword) or "") for keyword in IDENTIFIERS}
        for source in sources:
            source.SpecificCharacterSet = UTF_8
            for keyword in IDENTIFIERS:
                setattr(source, keyword, "")
        try:
            logger.setLevel(logging.ERROR)
            yield identifiers
        finally:
            logger.setLevel(level)
