# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path

import numpy as np
from monai.config import PathLike
from monai.data.utils import orientation_ras_lps
from monai.utils import ensure_tuple

from .header import VARIANTS, DicomSlice
from .series_files import SeriesFiles
from .tree_headers import Header, headers_of_files, headers_of_tree

__all__ = ["DicomSeries", "DicomTree", "find_series", "read_series", "select_series", "series_name"]

MOST_ATTRIBUTES = 3


@dataclass(frozen=True)
class DicomSeries:
    """The images of one DICOM series, or of one of the volumes that it holds, ordered in space.

    Args:
        slices: headers, by position along the normal of the planes (columns x rows), ascending.
        part: which of the volumes of the series this is, from 1; 0 where it is one volume.
    """

    slices: tuple[DicomSlice, ...]
    part: int = 0

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return self.slices[0].series_uid

    @property
    def name(self) -> str:
        """A name that tells nothing of the patient, see :func:`series_name`."""
        return series_name(self.uid) + (f"_{self.part}" if self.part else "")

    @property
    def modality(self) -> str:
        """Modality, e.g. ``"MR"``."""
        return self.slices[0].modality

    @property
    def description(self) -> str:
        """SeriesDescription."""
        return self.slices[0].description

    @property
    def frame_of_reference(self) -> str:
        """FrameOfReferenceUID, "" where there is none."""
        return self.slices[0].frame_of_reference

    @property
    def files(self) -> SeriesFiles:
        """Paths of the files, in the order of their first slices, and which frames of each are of this volume."""
        frames: dict[str, list[int]] = defaultdict(list)
        for slice_ in self.slices:
            frames[slice_.file] += [] if slice_.frame is None else [slice_.frame]
        return SeriesFiles(frames, frames.values() if self.part and any(frames.values()) else ())

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of columns, rows and slices."""
        columns, rows = self.slices[0].size
        return columns, rows, len(self.slices)

    @property
    def is_volume(self) -> bool:
        """Whether these are gray images with a place in the patient, and not localizers, reports or annotations."""
        first = self.slices[0]
        return not first.kind and all((first.size, first.position, first.orientation, first.spacing))

    @property
    def affine(self) -> np.ndarray:
        """RAS affine (4, 4) of (column, row, slice) in mm.

        The third column is the mean step from slice to slice as their positions have it, so that a tilted gantry
        shears the grid; a single slice has its SliceThickness, and counts as 1 mm thick without, as ITK has it.
        """
        first, last = self.slices[0], self.slices[-1]
        rows, columns = np.reshape(first.orientation, (2, 3))
        steps = len(self.slices) - 1
        step = (
            (np.subtract(last.position, first.position) / steps) if steps else _normal(first) * (first.thickness or 1)
        )
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = rows * first.spacing[0], columns * first.spacing[1]
        affine[:3, 2], affine[:3, 3] = step, first.position
        return orientation_ras_lps(affine)


@dataclass(frozen=True)
class DicomTree:
    """What :func:`find_series` found in a folder.

    Args:
        series: all series, reports and localizers included, by UID.
        unreadable: files that are DICOM by suffix or first bytes, but could not be read: truncated or encrypted.
    """

    series: tuple[DicomSeries, ...]
    unreadable: tuple[Path, ...] = field(default=(), repr=False)


def series_name(uid: str) -> str:
    """Name a series without telling anything of the patient: ``series_`` and 12 digits of the UID's SHA-256.

    Example:
        >>> series_name("1.2.840.113619.2.55.3")
        'series_8ca0727b40fa'
    """
    return f"series_{hashlib.sha256(uid.encode()).hexdigest()[:12]}"


def find_series(folder: PathLike, num_workers: int = 8) -> DicomTree:
    """Find all DICOM series in a folder, at any depth, by the headers of their files.

    Files of one series may bear any names and lie in any folders, those of several in one. Files and folders whose name
    begins with a dot are passed over, DICOMDIR too. Where a series, or one multi-frame file, has several images at each
    position (echoes, in and out of phase, time points, diffusion weights), and one attribute, or up to three together,
    parts them into volumes that cover all positions, each is a series of its own, numbered as those attributes sort.
    So are the stacks of a multi-frame file, and localizers and the like that share a series with a volume.

    What headers tell is kept in the user's cache folder, by path, size and time of change, so that an archive is listed
    in seconds when it is listed again.

    Args:
        folder: where to look, or one file.
        num_workers: threads that read headers.

    Returns:
        The series and the files that could not be read. Whether the series are sound is for
        :func:`monai_fewshot.data.series_problems` to say.
    """
    return _tree_of(headers_of_tree(folder, num_workers))


def read_series(files: Iterable[PathLike], num_workers: int = 8) -> DicomTree:
    """Group DICOM files to series, by their headers; see :func:`find_series`.

    Args:
        files: paths in any order.
        num_workers: threads that read headers.
    """
    return _tree_of(headers_of_files(files, num_workers))


def select_series(
    series: Iterable[DicomSeries],
    modality: str | Sequence[str] | None = None,
    description: str | Sequence[str] | None = None,
    series_uid: str | Sequence[str] | None = None,
) -> list[DicomSeries]:
    """Choose series; of several conditions all must hold, of several values of one any.

    Args:
        series: as :func:`find_series` returns them.
        modality: e.g. ``"MR"``, or several.
        description: part of the SeriesDescription, in upper or lower case, with ``*`` and ``?`` for any characters and
            any one, e.g. ``"t2*tra"``; or several.
        series_uid: SeriesInstanceUID, or the name that :func:`series_name` makes of it; or several. Default, as for
            the others: None, any.
    """
    modalities, parts, uids = map(_texts, (modality, description, series_uid))
    return [
        item
        for item in series
        if (not modalities or item.modality.lower() in map(str.lower, modalities))
        and (not parts or any(_is_part(part.lower(), item.description.lower()) for part in parts))
        and (not uids or {item.uid, item.name, series_name(item.uid)} & set(uids))
    ]


def _texts(values: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if values is None else tuple(str(value) for value in ensure_tuple(values))


def _is_part(part: str, text: str) -> bool:
    return part in text or fnmatchcase(text, f"*{part}*")


def _tree_of(headers: Sequence[tuple[str, Header]]) -> DicomTree:
    groups: dict[str, list[DicomSlice]] = defaultdict(list)
    for slice_ in (slice_ for _, slices in headers for slice_ in slices or ()):
        groups[slice_.series_uid].append(slice_)
    series = [part for _, group in sorted(groups.items()) for part in _volumes(group)]
    return DicomTree(tuple(series), tuple(Path(file) for file, slices in headers if slices is None))


def _volumes(slices: Sequence[DicomSlice]) -> list[DicomSeries]:
    groups = [part for kind in _grouped(slices, _kinds(slices)) for part in _parted(kind)]
    return [DicomSeries(in_space(group), part if len(groups) > 1 else 0) for part, group in enumerate(groups, start=1)]


def _kinds(slices: Sequence[DicomSlice]) -> list[tuple[str, ...]]:
    """What keeps images from being of one volume: what they are, and the stack that they belong to."""
    sizes = Counter(slice_.stack for slice_ in slices)
    return [(slice_.kind, slice_.stack if min(sizes.values()) > 1 else "") for slice_ in slices]


def _parted(slices: Sequence[DicomSlice]) -> list[list[DicomSlice]]:
    """Part images at equal positions by the first attributes that make volumes of them, each with all positions."""
    number = len(_places(slices))
    if not all(slice_.position for slice_ in slices) or number == len(slices) or copies(slices):
        return [list(slices)]
    named = len(VARIANTS)
    rows = [(*s.variant[:named], os.path.dirname(s.file), *s.variant[named:]) for s in slices]
    columns = [column for column in zip(*rows, strict=False) if len(set(column)) > 1]
    for count in range(1, MOST_ATTRIBUTES + 1):
        for chosen in combinations(columns, count):
            groups = _grouped(slices, list(zip(*chosen, strict=True)))
            if all(len(group) == len(_places(group)) == number for group in groups):
                return groups
    return [list(slices)]


def _grouped(slices: Sequence[DicomSlice], values: Sequence[tuple[str, ...]]) -> list[list[DicomSlice]]:
    groups: dict[tuple[str, ...], list[DicomSlice]] = defaultdict(list)
    for value, slice_ in zip(values, slices, strict=True):
        groups[value].append(slice_)
    return [groups[value] for value in sorted(groups, key=lambda value: tuple(map(_numeric, value)))]


def copies(slices: Sequence[DicomSlice]) -> int:
    """Count the images that are there once more, in copies of their files: of one SOPInstanceUID at one position."""
    return len(slices) - len({(slice_.instance_uid, slice_.frame, *_place(slice_)) for slice_ in slices})


def _place(slice_: DicomSlice) -> tuple[tuple[float, ...], ...]:
    return slice_.orientation, tuple(np.round(slice_.position, 3))


def _places(slices: Sequence[DicomSlice]) -> set[tuple[tuple[float, ...], ...]]:
    return set(map(_place, slices))


def _numeric(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return np.inf, value


def in_space(slices: Sequence[DicomSlice]) -> tuple[DicomSlice, ...]:
    if not all(slice_.position and slice_.orientation for slice_ in slices):
        return tuple(slices)
    normal = _normal(slices[0])
    return tuple(sorted(slices, key=lambda slice_: (float(np.dot(slice_.position, normal)), slice_.file)))


def _normal(slice_: DicomSlice) -> np.ndarray:
    return np.cross(*np.reshape(slice_.orientation, (2, 3)))
