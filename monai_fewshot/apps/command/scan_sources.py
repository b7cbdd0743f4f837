# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from monai.config import PathLike

from monai_fewshot.data import Scan, holds_picture, load_scans, support_scans
from monai_fewshot.data.dicom.scans import UNREADABLE
from monai_fewshot.data.layouts.folder_scans import scans_of_folder
from monai_fewshot.data.layouts.scan_files import check_names, is_picture, scan_files
from monai_fewshot.utils import write_atomically

from .problems import ScanProblem

__all__ = ["Example", "list_examples", "list_scans", "passed_over", "write_scan_list"]

Example = tuple[PathLike, PathLike]
"""An annotated scan: image and label."""


def list_scans(
    source: PathLike, leave_out: Collection[PathLike] = (), pictures: bool | None = None
) -> tuple[list[Scan], list[ScanProblem]]:
    """List the scans, or the 2D pictures, of a folder at any depth, without labels.

    A folder holds scans, and does not, as for :func:`monai_fewshot.data.load_scans`.

    Args:
        source: the folder, or one scan.
        leave_out: files that are no scans, such as labels, and folders not to look into.
        pictures: whether pictures are wanted, or scans. Defaults to None: scans, or pictures where there are no scans.

    Returns:
        The scans by name, and problems of files that belong to none.

    Raises:
        FileNotFoundError: where the folder does not exist or has no scan, or none of the wanted kind.
        ValueError: where it cannot be read as a data set, or scans share a name.
    """
    folder = Path(os.path.abspath(Path(source).expanduser()))
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist: give a folder of scans, or one scan.")
    if folder.is_file() or (folder / "dataset.json").is_file():
        return _of_kind(
            [{key: scan[key] for key in ("name", "image")} for scan in load_scans(folder)], pictures, folder
        )
    scans, unreadable = scans_of_folder(folder, leave_out=leave_out, pictures=bool(pictures))
    check_names(scans, folder)
    problems = []
    if unreadable:
        problem, _, remedy = UNREADABLE.partition(". ")
        problems.append(ScanProblem("", str(folder), f"{unreadable} DICOM file(s) {problem}", remedy))
    kept, mixed = _of_kind(sorted(scans, key=lambda scan: scan["name"]), pictures, folder)
    return kept, problems + mixed


def passed_over(source: PathLike, scans: Sequence[Scan], leave_out: Collection[PathLike] = ()) -> str:
    """Tell of the pictures that lie in a folder beside its scans.

    Args:
        source: the folder, or one scan.
        scans: that :func:`list_scans` found in it.
        leave_out: as for that.

    Returns:
        A sentence; empty where there are none.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir() or (folder / "dataset.json").is_file() or any(map(holds_picture, scans)):
        return ""
    number = len(scan_files(folder, is_picture, leave_out))
    return f"{number} PNG, JPEG, BMP or TIFF file(s) beside the scans are passed over." if number else ""


def _of_kind(scans: list[Scan], pictures: bool | None, folder: Path) -> tuple[list[Scan], list[ScanProblem]]:
    """The scans that are pictures, or the others, and a problem where there are both."""
    if pictures is None:
        pictures = all(map(holds_picture, scans))
    kept = [scan for scan in scans if holds_picture(scan) == pictures]
    if len(kept) == len(scans):
        return kept, []
    wanted, other = ("2D pictures", "scans") if pictures else ("scans", "2D pictures")
    if not kept:
        raise FileNotFoundError(
            f"{folder} holds {len(scans)} {other} and no {wanted}, of which the example is: take one of the {other} as "
            "the example, or name another folder."
        )
    problem = f"holds {len(scans) - len(kept)} {other} beside {len(kept)} {wanted}"
    remedy = f"Only the {wanted} are segmented; for the {other} give an example of their kind, and another --output."
    return kept, [ScanProblem("", str(folder), problem, remedy)]


def list_examples(examples: Sequence[Example], class_names: Sequence[str] | None = None) -> list[Scan]:
    """List annotated scans.

    Args:
        examples: image and label of each.
        class_names: see :func:`monai_fewshot.data.support_scans`.

    Returns:
        Dictionaries with ``name``, ``image`` and ``label``.

    Raises:
        FileNotFoundError: where a file does not exist.
        ValueError: where none is given, or one cannot be read as an example.
    """
    if not examples:
        raise ValueError("No example is given: name the image and the label of at least one annotated scan.")
    for kind, path in ((kind, path) for pair in examples for kind, path in zip(("image", "label"), pair, strict=True)):
        if not Path(path).expanduser().exists():
            raise FileNotFoundError(f"The {kind} of an example, {path}, does not exist: correct its path.")
    images, labels = zip(*examples, strict=True)
    kinds = {is_picture(Path(path)) for path in images}
    if len(kinds) > 1:
        raise ValueError("Some examples are 2D pictures and some are scans: give examples of one kind.")
    return support_scans(list(images), list(labels), class_names=class_names)


def write_scan_list(folder: Path, scans: Sequence[Scan], class_names: Mapping[int, str]) -> Path:
    """Write a ``dataset.json`` that lists scans where they lie, for a bundle to read.

    Args:
        folder: where to write it.
        scans: the scans.
        class_names: names by number.

    Returns:
        The folder.
    """
    entries = [
        {"name": scan["name"], "image": scan["image"], "frames": getattr(scan["image"], "frames", ())} for scan in scans
    ]
    labels = {"0": "background", **{str(number): name for number, name in class_names.items()}}
    write_atomically(folder / "dataset.json", json.dumps({"labels": labels, "training": entries}, indent=1))
    return folder
