# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import optional_import

from monai_fewshot.data.scans.label_grids import OFF_GRID, LabelGrid, Region

from .contours import Contour, fill_contours
from .header import DicomSlice, slices_of

logger = logging.getLogger(__name__)

__all__ = ["contour_regions", "dicom_region_names", "dicom_regions", "segment_regions"]

pydicom, _ = optional_import("pydicom")
iter_pixels, _ = optional_import("pydicom.pixels", name="iter_pixels")

XOR = "CLOSEDPLANAR_XOR"
CLOSED = ("CLOSED_PLANAR", XOR)
_UNIT_TOLERANCE = 0.02
THICKNESS_TOLERANCE = 0.1


def dicom_regions(file: Path, grid: LabelGrid) -> list[Region]:
    """Read the regions of a DICOM annotation onto the grid of an image.

    Args:
        file: DICOM SEG or RTSTRUCT.
        grid: of the image.

    Returns:
        As :func:`segment_regions` or :func:`contour_regions` tells.

    Raises:
        ValueError: where it is no annotation, or as they tell.
    """
    with _damage_told():
        ds = _annotation(file)
        return segment_regions(ds, grid) if "SegmentSequence" in ds else contour_regions(ds, grid)


def dicom_region_names(file: Path) -> dict[int, str]:
    """Names of the regions of a DICOM annotation, as :func:`dicom_regions` numbers them."""
    with _damage_told():
        ds = _annotation(file, stop_before_pixels=True)
        return segment_names(ds) if "SegmentSequence" in ds else region_names(ds)


def segment_regions(ds: Any, grid: LabelGrid) -> list[Region]:
    """Read the segments of a DICOM SEG, binary, fractional (from a half on) or a label map.

    Each frame lies where its position and orientation say, in whatever order and along whichever axis of the grid, one
    way or the other. Positions may be off by up to 0.3 voxels, as slices of uneven gaps are.

    Args:
        ds: ``pydicom.Dataset`` of the file.
        grid: of the image.

    Returns:
        One region a segment, in the order of their numbers; voxels outside of the grid are left out.

    Raises:
        ValueError: where it belongs to another frame of reference, or its pixels are not the grid's, nor its frames as
            thick as the slices of the image.
    """
    grid.check_frame_of_reference(str(ds.get("FrameOfReferenceUID") or ""))
    voxels: dict[int, list[np.ndarray]] = defaultdict(list)
    slices = slices_of(ds, ds.filename)
    _check_thickness(slices, grid)
    for slice_, groups, pixels in zip(slices, ds.PerFrameFunctionalGroupsSequence, _frames(ds), strict=True):
        to_index = _frame_to_index(slice_, grid)
        for number, mask in _segments_of_frame(ds, groups, pixels):
            rows, columns = np.nonzero(mask)
            index = to_index[:3, :2] @ np.stack([columns, rows]) + to_index[:3, 3:]
            whole = np.rint(index)
            if np.abs(index - whole).max(initial=0) > OFF_GRID:
                raise ValueError(_not_on_grid("frames lie between the voxels"))
            voxels[number].append(grid.flat(whole.astype(int)))
    names = segment_names(ds)
    nothing = np.zeros(0, int)
    return [Region(number, name, np.concatenate([nothing, *voxels[number]])) for number, name in names.items()]


def contour_regions(ds: Any, grid: LabelGrid) -> list[Region]:
    """Fill the contours of an RTSTRUCT (:func:`~monai_fewshot.data.dicom.contours.fill_contours`).

    Contours of the type CLOSEDPLANAR_XOR are combined by exclusive or within their plane. Of the type CLOSED_PLANAR an
    inner contour is a hole; a keyhole, one contour that runs in and out along the same line, is one as well.

    Deviation: for CLOSED_PLANAR, DICOM (PS3.3, C.8.8.6) leaves inner contours open, and annotation tools write them as
    holes.

    Args:
        ds: ``pydicom.Dataset`` of the file.
        grid: of the image.

    Returns:
        One region for each that has closed contours, numbered from 1 in the order of their numbers in the file; what
        lies outside of the grid is left out.

    Raises:
        ValueError: where a region belongs to another frame of reference, or contours cross the planes of the grid.
    """
    regions = []
    for number, (item, contours) in enumerate(_drawn(ds), start=1):
        grid.check_frame_of_reference(str(item.get("ReferencedFrameOfReferenceUID") or ""))
        name = _name(item)
        regions.append(Region(number, name, fill_contours(contours, grid, name)))
    return regions


def segment_names(ds: Any) -> dict[int, str]:
    """Names of the segments of a DICOM SEG by number, without the background of a label map."""
    names = {int(item.SegmentNumber): str(item.SegmentLabel) for item in ds.SegmentSequence}
    return {number: names[number] for number in sorted(names) if number > 0}


def region_names(ds: Any) -> dict[int, str]:
    """Names of the regions of an RTSTRUCT that have closed contours, as :func:`contour_regions` numbers them."""
    return {number: _name(item) for number, (item, _) in enumerate(_drawn(ds), start=1)}


@contextmanager
def _damage_told() -> Iterator[None]:
    """Say of whatever pydicom meets in a damaged file that it is damaged."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"lacks a part that it must have, as a truncated or damaged file does ({type(error).__name__}: {error}); "
            "copy or export it again."
        ) from error


def _name(item: Any) -> str:
    return str(item.get("ROIName") or f"region {item.ROINumber}")


def _annotation(file: Path, **options: Any) -> Any:
    try:
        ds = pydicom.dcmread(file, **options)
    except Exception as error:
        raise ValueError(f"cannot be read as DICOM ({type(error).__name__}); copy it again.") from None
    if ("SegmentSequence" not in ds) == ("StructureSetROISequence" not in ds):
        raise ValueError(
            f"is DICOM of modality {ds.get('Modality')}; expected a segmentation (SEG) or contours (RTSTRUCT)."
        )
    return ds


def _frames(ds: Any) -> Iterator[np.ndarray]:
    return iter_pixels(ds) if int(ds.get("NumberOfFrames") or 1) > 1 else iter([ds.pixel_array])


def _segments_of_frame(ds: Any, groups: Any, pixels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    if ds.get("SegmentationType") == "LABELMAP":
        yield from ((int(number), pixels == number) for number in np.unique(pixels) if number > 0)
        return
    shared = ds.SharedFunctionalGroupsSequence[0]
    owner = groups if "SegmentIdentificationSequence" in groups else shared
    number = int(owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    highest = int(ds.get("MaximumFractionalValue") or 255) if ds.get("SegmentationType") == "FRACTIONAL" else 1
    yield number, pixels.astype(int) * 2 >= highest


def _check_thickness(slices: Sequence[DicomSlice], grid: LabelGrid) -> None:
    """Raise a ValueError where frames stand for thicker or thinner slices than those of the image.

    Frames in neighboring slices are as they should be. Where there are none, the file's own distance of frames counts,
    or else their thickness, which may be that of the image's slices in place of their distance.
    """
    placed = [slice_ for slice_ in slices if slice_.position and slice_.orientation]
    if not placed:
        return
    normal = np.cross(placed[0].orientation[:3], placed[0].orientation[3:])
    directions = grid.affine[:3, :3] * np.array([[-1], [-1], [1]])
    own = float(np.abs(normal @ directions).max())
    gaps = np.diff(np.unique(np.round([normal @ slice_.position for slice_ in placed], 3)))
    if len(gaps) and gaps.min() < (1 + OFF_GRID) * own:
        return
    expected = [own] if placed[0].step or not grid.thickness else [own, grid.thickness]
    length = placed[0].step or placed[0].thickness
    if length and not any(abs(length / each - 1) < THICKNESS_TOLERANCE for each in expected):
        raise ValueError(
            _not_on_grid(f"its frames are for slices of {length:.4g} mm, but those of the image are {own:.4g} mm apart")
        )


def _frame_to_index(slice_: DicomSlice, grid: LabelGrid) -> np.ndarray:
    """Affine from (column, row, 0) of a frame to indices of the grid."""
    if not (slice_.position and slice_.orientation and slice_.spacing):
        raise ValueError("does not tell where its frames lie; export it again with positions and orientations.")
    frame = np.eye(4)
    frame[:3, 0] = np.multiply(slice_.orientation[:3], slice_.spacing[0])
    frame[:3, 1] = np.multiply(slice_.orientation[3:], slice_.spacing[1])
    frame[:3, 3] = slice_.position
    to_index = grid.lps_to_index @ frame
    steps = to_index[:3, :2]
    if np.abs(steps - np.rint(steps)).max() > _UNIT_TOLERANCE or np.abs(np.rint(steps)).sum() != 2:
        raise ValueError(_not_on_grid(f"pixels of {slice_.spacing[0]:g} x {slice_.spacing[1]:g} mm are not its voxels"))
    to_index[:3, :2] = np.rint(steps)
    return to_index


def _not_on_grid(what: str) -> str:
    return (
        f"is not on the grid of its image: {what}. Give the segmentation of this very series, or resample it onto the "
        "image, e.g. with monai.transforms.ResampleToMatch, and save it as NIfTI."
    )


def _drawn(ds: Any) -> list[tuple[Any, list[Contour]]]:
    """Regions with their closed contours, where they have any, in the order of their numbers."""
    drawn = {int(item.ReferencedROINumber): item for item in ds.get("ROIContourSequence") or ()}
    items = sorted(ds.StructureSetROISequence, key=lambda item: int(item.ROINumber))
    pairs = [(item, _closed_contours(drawn.get(int(item.ROINumber)))) for item in items]
    return [(item, contours) for item, contours in pairs if contours]


def _closed_contours(item: Any) -> list[Contour]:
    contours = (item.get("ContourSequence") or ()) if item is not None else ()
    closed = [
        Contour(np.array(contour.ContourData, float).reshape(-1, 3), contour.ContourGeometricType == XOR)
        for contour in contours
        if contour.get("ContourGeometricType") in CLOSED and contour.get("ContourData")
    ]
    empty = sum(not contour.get("ContourData") for contour in contours)
    if empty:
        logger.warning("%d of %d contours of a region have no points, and are passed over", empty, len(contours))
    return [each for each in closed if len(each.points) > 2]
