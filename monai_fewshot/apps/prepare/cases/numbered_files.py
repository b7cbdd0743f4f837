# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from monai_fewshot.apps.prepare.sources.data_source import SOURCES

from .case import Case, Problem

__all__ = ["by_number", "find_numbered", "find_pairs", "nothing_found", "walk"]


def walk(source: Path) -> Iterator[Path]:
    """Go through all files and folders of a download at any depth, in order of their names, but for hidden ones.

    Args:
        source: a folder.
    """
    for parent, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        yield from (Path(parent, name) for name in (*folders, *sorted(files)) if not name.startswith("."))


def find_numbered(source: Path, pattern: str) -> dict[int, list[Path]]:
    """Find files or folders by the number in their name.

    Args:
        source: folder to search at any depth.
        pattern: regular expression of the whole name, whose first group is the number.

    Returns:
        Paths by number; several where a name is there more than once.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "img0007.nii.gz").touch()
        >>> [path.name for path in find_numbered(folder, r"img([0-9]+)[.]nii([.]gz)?")[7]]
        ['img0007.nii.gz']
    """
    found: dict[int, list[Path]] = defaultdict(list)
    for path in walk(source):
        if match := re.fullmatch(pattern, path.name):
            found[int(match[1])].append(path)
    return dict(found)


def nothing_found(source: Path, name: str) -> Problem:
    """Say that a folder holds nothing of a data set, and what it should hold.

    Args:
        source: the folder.
        name: of the data set in :data:`monai_fewshot.apps.prepare.sources.data_source.SOURCES`.
    """
    return Problem("", source, f"holds none of the scans; expected {SOURCES[name].contents}.")


def find_pairs(
    source: Path, data_set: str, patients: Iterable[int], name: str, image: tuple[str, str], label: tuple[str, str]
) -> tuple[list[Case], list[Problem]]:
    """Find the image and the label of each patient.

    Args:
        source: folder to search at any depth.
        data_set: name of the data set, see :func:`nothing_found`.
        patients: those that the data set should hold.
        name: of a scan, such as ``"sabs_{:02d}"``.
        image: the pattern of its file, see :func:`find_numbered`, and its name, such as ``"img{:04d}.nii.gz"``.
        label: likewise.

    Returns:
        Scans of which image and label are there, and a problem for each file that is missing or there twice.
    """
    images, labels = (find_numbered(source, pattern) for pattern, _ in (image, label))
    if not images and not labels:
        return [], [nothing_found(source, data_set)]
    cases, problems = [], []
    for patient in patients:
        own = [by_patient.get(patient, []) for by_patient in (images, labels)]
        for files, kind, expected in zip(own, ("image", "label"), (image[1], label[1]), strict=True):
            problems += _count_problems(name.format(patient), files, kind, expected.format(patient))
        if all(own):
            cases.append(Case(name.format(patient), (own[0][0],), (own[1][0],)))
    return cases, problems


def by_number(path: Path) -> list[str | int]:
    """Sort key of file names by which 2 comes before 10.

    Example:
        >>> sorted(map(Path, ("a10.png", "a2.png")), key=by_number)[0].name
        'a2.png'
    """
    return [int(part) if part.isdigit() else part for part in re.split("([0-9]+)", path.name)]


def _count_problems(name: str, files: Sequence[Path], kind: str, file: str) -> list[Problem]:
    if not files:
        return [Problem(name, None, f"its {kind} {file} is missing; download it, or leave the patient out (patients).")]
    if len(files) > 1:
        others = ", ".join(map(str, files[1:]))
        return [Problem(name, files[0], f"its {kind} is there more than once, also as {others}; keep one of them.")]
    return []
