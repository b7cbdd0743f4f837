# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.utils import optional_import

from .series import DicomSeries, DicomTree, find_series, select_series
from .series_checks import series_problems

__all__ = ["UNREADABLE", "dicom_scans", "warn_of_unreadable"]

logger = logging.getLogger(__name__)

_, has_pydicom = optional_import("pydicom")
_SHOWN_SERIES = 10
UNREADABLE = (
    "cannot be read, they are truncated, encrypted or no DICOM inside. Copy them again or take them away; "
    "monai_fewshot.data.find_series(...).unreadable lists them."
)


def dicom_scans(
    path: Path,
    required: bool = True,
    modality: str | Sequence[str] | None = None,
    description: str | Sequence[str] | None = None,
    series_uid: str | Sequence[str] | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """List the DICOM series in a folder, at any depth, as scans.

    What is no volume (reports, localizers, doses, annotations, color images) is passed over, unless its UID is asked
    for; the log tells of the images.

    Args:
        path: folder or file.
        required: whether it is an error if there are DICOM files but no series is chosen.
        modality: as for :func:`monai_fewshot.data.select_series`.
        description: likewise.
        series_uid: likewise.

    Returns:
        Dictionaries with ``name``, a hash of the UID, and ``image``, the files of the series in spatial order, none for
        a folder without DICOM files; and the number of files that cannot be read.

    Raises:
        ValueError: where none of the files can be read, or there are series but none is chosen. The text names
            ``path``, but no file or folder in it, and nothing that headers tell of the patient.
    """
    tree = find_series(path)
    if not tree.series and not tree.unreadable:
        return [], 0
    if not has_pydicom:
        raise ValueError(f'{path} holds DICOM files; to read them, pip install "monai_fewshot[pydicom]".')
    chosen = select_series(tree.series, modality, description, series_uid)
    scans = chosen if series_uid is not None else [series for series in chosen if series.is_volume]
    if len(scans) < len(tree.series):
        logger.info("%d of the %d DICOM series in %s are chosen", len(scans), len(tree.series), path)
    if not scans and required:
        raise ValueError(_no_series(path, tree, chosen))
    passed_over = [series for series in chosen if series not in scans and series.slices[0].size]
    if passed_over:
        logger.warning(
            "%d DICOM series in %s are passed over, as they are no volumes: %s",
            len(passed_over),
            path,
            " ".join(_problems(passed_over)),
        )
    return [{"name": series.name, "image": series.files} for series in scans], len(tree.unreadable)


def warn_of_unreadable(path: Path, number: int) -> None:
    """Tell the log of DICOM files that cannot be read, if there are any."""
    if number:
        logger.warning("%s: %d DICOM file(s) %s", path, number, UNREADABLE)


def _problems(series: Sequence[DicomSeries]) -> list[str]:
    few = [f"{each.name}: {' '.join(series_problems(each))}" for each in series[:_SHOWN_SERIES]]
    return [*few, *(["..."] if len(series) > _SHOWN_SERIES else [])]


def _no_series(path: Path, tree: DicomTree, chosen: Sequence[DicomSeries]) -> str:
    present = tree.series
    if not present:
        return f"{path}: all {len(tree.unreadable)} DICOM file(s) there {UNREADABLE}"
    if chosen:
        return "\n".join([f"{path}: no DICOM series there is a volume that could be segmented.", *_problems(chosen)])
    few = [f"{series.name} ({series.modality}, {len(series.slices)} images)" for series in present[:_SHOWN_SERIES]]
    shown = ", ".join(few) + (", ..." if len(present) > _SHOWN_SERIES else "")
    return (
        f"{path} holds {len(present)} DICOM series, but none with the modality, description and UID asked for: "
        f"{shown}. Descriptions are not shown, as they may name patients."
    )
