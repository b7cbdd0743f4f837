# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from monai.config import PathLike

__all__ = ["check_names", "is_image", "is_picture", "scan_files", "scan_name", "volume_suffix"]

logger = logging.getLogger(__name__)

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
SEGMENTATION_SUFFIXES = (".seg.nrrd", ".seg.nhdr")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MOST_BYTES_OF_A_NAME = 200
_ANNOTATIONS = r"labels?|masks?|d?segs?|segmentations?|probseg|annotations?|ground[-_]?truth|gt"
_FILE_OF_ANNOTATIONS = re.compile(rf"(.*[-_.])?({_ANNOTATIONS})", re.IGNORECASE)
_FOLDER_OF_NO_SCANS = re.compile(rf"({_ANNOTATIONS})(tr|ts|va)?|derivatives|sourcedata|previews", re.IGNORECASE)
_SHOWN = 5


def scan_files(
    folder: Path, wanted: Callable[[Path], bool], leave_out: Collection[PathLike] = ()
) -> list[tuple[str, Path]]:
    """List the files of scans in a folder, at any depth, and name them.

    Annotations, masks of an earlier run and derived images are passed over, which the log tells: files such as
    ``a_label.nii.gz`` and ``a_seg.nii.gz``, and what lies in folders called ``labels``, ``masks``, ``derivatives`` and
    the like. Where there is nothing else, they are listed. Files and folders whose name begins with a dot do not count.

    Args:
        folder: the folder, whose own name does not matter, or one file.
        wanted: whether a file is one of those looked for, such as :func:`is_image`.
        leave_out: files that are no scans, such as labels, and folders not to look into.

    Returns:
        Name and path of each; a name that repeats has those of the folders before it, such as ``patient1_scan``.
    """
    ignored = {Path(path).expanduser().resolve() for path in leave_out}
    files = sorted(_visible_files(folder, wanted, ignored))
    scans = [file for file in files if not _is_annotation(file.relative_to(folder))] or files
    if others := sorted(set(files) - set(scans)):
        logger.warning(
            "%d files in %s are passed over, as their names are those of annotations, masks or derived images: %s",
            len(others),
            folder,
            ", ".join(os.fspath(file.relative_to(folder)) for file in others[:_SHOWN])
            + (", ..." if len(others) > _SHOWN else ""),
        )
    counts = Counter(map(scan_name, scans))
    return [
        (stem if counts[stem] == 1 else "_".join((*file.relative_to(folder).parts[:-1], stem)), file)
        for file, stem in ((file, scan_name(file)) for file in scans)
    ]


def check_names(scans: Sequence[dict[str, Any]], folder: Path) -> None:
    """Check that scans can be called by their names, which files of results bear.

    Raises:
        ValueError: where scans share a name, or one would lead out of a folder or is no name of a file; all are listed.
    """
    odd = sorted({scan["name"] for scan in scans if not _names_a_file(scan["name"])})
    if odd:
        raise ValueError(
            f"{folder}: scans are called {', '.join(map(repr, odd[:_SHOWN]))}, but masks and pictures are called after "
            "them: give names without / and \\, that are printable, do not begin with a dot and have at most "
            f"{MOST_BYTES_OF_A_NAME} bytes."
        )
    counts = Counter(scan["name"] for scan in scans)
    doubled = sorted((scan["name"], str(scan["image"])) for scan in scans if counts[scan["name"]] > 1)
    if doubled:
        raise ValueError(
            f"{folder}: scans share a name: {', '.join(f'{name} ({image})' for name, image in doubled)}. "
            'Rename or remove files, or give each entry of dataset.json a "name" of its own.'
        )


def is_image(path: Path) -> bool:
    """Whether a file is a volume by its suffix, and no segmentation of 3D Slicer."""
    return bool(volume_suffix(path)) and not path.name.lower().endswith(SEGMENTATION_SUFFIXES)


def is_picture(path: Path) -> bool:
    """Whether a file is a 2D picture by its suffix."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def volume_suffix(path: Path) -> str:
    """The suffix of a file of a volume, such as ``.nii.gz``; empty for other files."""
    return next((suffix for suffix in VOLUME_SUFFIXES if path.name.lower().endswith(suffix)), "")


def scan_name(path: Path) -> str:
    """Name a scan after its file or folder."""
    suffix = "" if path.is_dir() else volume_suffix(path) or path.suffix
    return path.name[: len(path.name) - len(suffix)]


def _names_a_file(name: str) -> bool:
    is_short = 0 < len(name.encode(errors="surrogatepass")) <= MOST_BYTES_OF_A_NAME
    return is_short and name.isprintable() and not name.startswith(".") and not {"/", "\\"} & set(name)


def _is_annotation(path: Path) -> bool:
    return bool(
        any(map(_FOLDER_OF_NO_SCANS.fullmatch, path.parts[:-1])) or _FILE_OF_ANNOTATIONS.fullmatch(scan_name(path))
    )


def _visible_files(folder: Path, wanted: Callable[[Path], bool], ignored: Collection[Path]) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [
            name for name in folders if not name.startswith(".") and Path(place, name).resolve() not in ignored
        ]
        visible = (Path(place, name) for name in files if not name.startswith("."))
        yield from (file for file in visible if wanted(file) and file.resolve() not in ignored)
