# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from .header import DicomSlice
from .series import DicomSeries, copies

__all__ = ["series_problems"]

GAP_TOLERANCE = 0.1
_SAME_COSINES = 1e-3
_SHOWN_GAPS = 3


def series_problems(series: DicomSeries) -> list[str]:
    """Find all that keeps a DICOM series from being one volume on a regular grid.

    Found are reports and other objects without pixels, doses, localizers, mosaics, captures of a screen and color
    images, images without position, orientation or spacing, files that are too short for their pixels, images that
    differ in size, spacing or orientation, doubled and missing slices, and gaps that differ by more than a tenth of the
    median one. Noise of positions below that passes, as does a tilted gantry.

    Args:
        series: as :func:`monai_fewshot.data.find_series` returns it.

    Returns:
        One text each, which says what to do and holds nothing of the patient, no file name and no description; none for
        a sound series.
    """
    slices = series.slices
    kind = _kind_problems(slices)
    if kind:
        return kind
    problems = [
        *_truncation_problems(series),
        *_unequal(slices, "size", lambda slice_: slice_.size, "{0[0]} x {0[1]} voxels"),
        *_unequal(slices, "pixel spacing", lambda slice_: _rounded(slice_.spacing), "{0[0]:g} x {0[1]:g} mm"),
    ]
    turned = _orientation_problems(slices)
    return [*problems, *turned, *([] if turned else _position_problems(slices))]


def _kind_problems(slices: Sequence[DicomSlice]) -> list[str]:
    without_pixels = sum(not slice_.size for slice_ in slices)
    if without_pixels:
        return [
            f"{_of(without_pixels, slices)} hold no image (modality {slices[0].modality or 'unknown'}), as reports and "
            "contours do; choose the series of the images."
        ]
    kinds = Counter(slice_.kind for slice_ in slices if slice_.kind)
    if kinds:
        return [f"{_of(count, slices)} are {kind}. Choose another series." for kind, count in kinds.items()]
    problems = []
    for name, attribute in (
        ("position", "ImagePositionPatient"),
        ("orientation", "ImageOrientationPatient"),
        ("spacing", "PixelSpacing"),
    ):
        lacking = sum(not getattr(slice_, name) for slice_ in slices)
        if lacking:
            problems.append(
                f"{_of(lacking, slices)} do not tell their {name} ({attribute}), so that their place in the patient is "
                "unknown; export the original series."
            )
    return problems


def _truncation_problems(series: DicomSeries) -> list[str]:
    short = {slice_.file for slice_ in series.slices if slice_.is_truncated}
    if not short:
        return []
    return [f"{len(short)} of {len(series.files)} files are truncated, shorter than their pixels; copy them again."]


def _unequal(slices: Sequence[DicomSlice], what: str, value: Callable[[DicomSlice], tuple], form: str) -> list[str]:
    values = sorted({value(slice_) for slice_ in slices})
    if len(values) == 1:
        return []
    shown = ", ".join(
        f"{form.format(each)} ({sum(value(slice_) == each for slice_ in slices)} images)" for each in values[:5]
    )
    return [f"images differ in {what}: {shown}; give the series of one volume."]


def _orientation_problems(slices: Sequence[DicomSlice]) -> list[str]:
    cosines = np.array([slice_.orientation for slice_ in slices])
    odd = int((np.abs(cosines - np.median(cosines, axis=0)).max(axis=1) > _SAME_COSINES).sum())
    if odd:
        return [
            f"images differ in orientation, {_of(odd, slices)} from the rest, as in a localizer of three planes; give "
            "the series of one volume."
        ]
    rows, columns = cosines[0, :3], cosines[0, 3:]
    if abs(rows @ columns) > _SAME_COSINES or np.abs(np.linalg.norm([rows, columns], axis=1) - 1).max() > _SAME_COSINES:
        return ["directions of rows and columns are no unit vectors at right angles; export the original series."]
    return []


def _position_problems(slices: Sequence[DicomSlice]) -> list[str]:
    positions = np.array([slice_.position for slice_ in slices])
    if len(positions) == 1:
        return []
    rows, columns = np.array(slices[0].orientation[:3]), np.array(slices[0].orientation[3:])
    heights = positions @ np.cross(rows, columns)
    gaps = np.diff(heights)
    distinct = gaps[gaps > 1e-3]
    if copies(slices):
        return [f"{_of(copies(slices), slices)} are copies of others, with the same SOPInstanceUID; remove the copies."]
    if len(distinct) < len(gaps):
        return [_doubles(heights)]
    step = float(np.median(gaps))
    problems = _gap_problems(gaps, step)
    sideways = (positions @ np.stack([rows, columns], axis=1)) / np.array(slices[0].spacing)
    line = np.linspace(0, 1, len(slices)) if problems else (heights - heights[0]) / (heights[-1] - heights[0])
    drift = np.abs(sideways - sideways[0] - line[:, None] * (sideways[-1] - sideways[0])).max()
    if not problems and drift > 0.5:
        problems.append(f"slices are shifted in plane by up to {drift:.3g} pixels; give the series of one volume.")
    return problems


def _doubles(heights: np.ndarray) -> str:
    _, counts = np.unique(np.round(heights, 3), return_counts=True)
    doubled = int((counts > 1).sum())
    return (
        f"{doubled} of {len(counts)} positions hold more than one image, up to {counts.max()}: slices are doubled, or "
        "several echoes, contrasts or time points are in one series. Give one of them, e.g. in a folder of its own."
    )


def _gap_problems(gaps: np.ndarray, step: float) -> list[str]:
    odd = np.flatnonzero(np.abs(gaps - step) > GAP_TOLERANCE * step)
    if not len(odd):
        return []
    missing = np.rint(gaps / step) - 1
    whole = np.abs(gaps / step - np.rint(gaps / step)) <= 2 * GAP_TOLERANCE
    places = ", ".join(f"{gaps[place]:.4g} mm after slice {place + 1}" for place in odd[:_SHOWN_GAPS])
    shown = places + (", ..." if len(odd) > _SHOWN_GAPS else "")
    if whole[odd].all() and (missing[odd] > 0).all():
        return [f"{missing[odd].sum():.0f} slice(s) are missing: gaps of {shown}, of {step:.4g} mm else; export again."]
    return [
        f"gaps between slices are uneven: {shown}, {step:.4g} mm in the median; give a series of even gaps, or "
        "resample it to one."
    ]


def _of(count: int, slices: Sequence[DicomSlice]) -> str:
    return f"{count} of {len(slices)} images"


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in values)
