# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.config import PathLike

from monai_fewshot.data.dicom.header import is_dicom
from monai_fewshot.data.dicom.scans import dicom_scans

from .scan_files import VOLUME_SUFFIXES, is_image, is_picture, scan_files, scan_name

__all__ = ["scans_of_folder"]


def scans_of_folder(
    folder: Path,
    choice: Mapping[str, str | Sequence[str]] | None = None,
    leave_out: Collection[PathLike] = (),
    pictures: bool = False,
) -> tuple[list[dict[str, Any]], int]:
    """List the scans of a folder without a ``dataset.json``, at any depth; see :func:`monai_fewshot.data.load_scans`.

    Args:
        folder: the folder, or one file.
        choice: of DICOM series, see :func:`monai_fewshot.data.dicom.scans.dicom_scans`; other scans are then left out.
        leave_out: files that are no scans, such as labels, and folders not to look into.
        pictures: whether 2D pictures are listed beside scans of other kinds, and not only where there are none.

    Returns:
        The scans, and the number of DICOM files that cannot be read.

    Raises:
        FileNotFoundError: where there is no scan.
        ValueError: where there are DICOM files, but none can be read or is a volume, and no other scan.
    """
    if folder.is_file() and not is_dicom(folder) and not choice:
        return [{"name": scan_name(folder), "image": str(folder)}], 0
    files = [] if choice else scan_files(folder, is_image, leave_out)
    shown = scan_files(folder, is_picture, leave_out) if pictures or not (choice or files) else []
    scans, unreadable = dicom_scans(folder, required=not files and not shown, **(choice or {}))
    of_series = {scan["name"] for scan in scans}
    files = [(name, file) for name, file in files if name.removesuffix("_seg") not in of_series]
    files += shown if pictures or not scans else []
    scans += [{"name": name, "image": str(file)} for name, file in files]
    if not scans:
        what = "no DICOM series" if choice else f"no image ({', '.join(VOLUME_SUFFIXES)}) and no DICOM series"
        contents = "" if folder.is_file() else f" it holds {', '.join(sorted(os.listdir(folder))[:5]) or 'nothing'}."
        raise FileNotFoundError(
            f"{folder} holds no dataset.json, {what};{contents} Give the folder that has the images in it."
        )
    return scans, unreadable
