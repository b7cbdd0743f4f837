# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterable

from .header import DicomSlice

__all__ = ["SeriesFiles"]


class SeriesFiles(tuple[str, ...]):
    """Paths of the files of a series, which do not show where they are printed or logged: they may name a patient.

    Args:
        files: the paths.
        frames: which frames of each file are meant; empty for all.

    Example:
        >>> SeriesFiles(["Jane Doe/1.dcm", "Jane Doe/2.dcm"])
        <2 DICOM files>
    """

    frames: tuple[tuple[int, ...], ...]

    def __new__(cls, files: Iterable[str], frames: Iterable[Iterable[int]] = ()) -> SeriesFiles:
        """See the class."""
        self = super().__new__(cls, files)
        self.frames = tuple(map(tuple, frames))
        return self

    def holds(self, slice_: DicomSlice) -> bool:
        """Tell whether an image is one of those that are meant."""
        return slice_.file in self and (not self.frames or slice_.frame in self.frames[self.index(slice_.file)])

    def __repr__(self) -> str:
        return f"<{len(self)} DICOM files>"
