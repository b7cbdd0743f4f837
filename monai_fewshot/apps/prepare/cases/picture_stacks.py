# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image

from monai_fewshot.data.dicom.series import DicomSeries, read_series
from monai_fewshot.data.dicom.series_checks import series_problems
from monai_fewshot.data.dicom.series_reader import SeriesReader
from monai_fewshot.data.files.file_damage import check_picture
from monai_fewshot.utils import EpisodeKeys

from .case import Case, Problem
from .nifti_scans import unknown_value_problem

__all__ = ["load_picture_stack", "stack_problems"]


def load_picture_stack(case: Case, values: Mapping[int, int]) -> dict[str, Any]:
    """Read a DICOM series whose label is a picture a slice.

    The picture of a slice is the one at the same place in the order of the files' names, wherever the slice lies: the
    slices of the volume are in spatial order, in which names need not ascend. Rows and columns of a picture are those
    of the slice.

    Args:
        case: DICOM files as ``image`` and as many gray pictures as ``label``, each sorted by the number in their names.
        values: class by gray value.

    Returns:
        ``image`` and ``label``, each (1, columns, rows, slices), with the series' affine.

    Raises:
        ValueError: where the series is not sound, or pixels cannot be read.
    """
    series, problems = _volume(case.image)
    if series is None or problems:
        raise ValueError("\n".join(problems))
    voxels, meta = SeriesReader().get_data(series)
    affine = torch.as_tensor(meta["affine"])
    pictures = dict(zip(map(str, case.image), case.label, strict=True))
    classes = [_classes(_read_picture(pictures[slice_.file]), values).T for slice_ in series.slices]
    return {
        str(EpisodeKeys.IMAGE): MetaTensor(torch.as_tensor(np.ascontiguousarray(voxels))[None], affine=affine),
        str(EpisodeKeys.LABEL): MetaTensor(torch.as_tensor(np.stack(classes, axis=-1)).float()[None], affine=affine),
    }


def stack_problems(case: Case, values: Mapping[int, int]) -> list[Problem]:
    """Find what is wrong with a DICOM series whose label is a picture a slice, without reading the series' pixels.

    Found are what :func:`monai_fewshot.data.series_problems` finds, such as missing slices, files of several series,
    slices whose order in space is not that of their names, another number of pictures than of slices, and pictures that
    cannot be read, are of another size or hold unknown values.

    Args:
        case: as for :func:`load_picture_stack`.
        values: class by gray value.

    Returns:
        The problems.
    """
    folder = case.image[0].parent
    series, texts = _volume(case.image)
    problems = [Problem(case.name, folder, text) for text in texts]
    if len(case.label) != len(case.image):
        problems.append(
            Problem(
                case.name,
                case.label[0].parent,
                f"holds {len(case.label)} pictures for the {len(case.image)} DICOM files in {folder}, so that which "
                "belongs to which slice is unknown; download them again.",
            )
        )
    if series is not None and not texts and not _follows_names(series, case.image):
        text = "the slices are out of order: they do not lie in the order of the files' names, by which they are "
        problems.append(
            Problem(case.name, folder, text + "paired with the pictures of the label; download them again.")
        )
    size = series.slices[0].size if series is not None else ()
    return [*problems, *_picture_problems(case, size, values)]


def _volume(files: Sequence[Path]) -> tuple[DicomSeries | None, list[str]]:
    """The volume that all images of a folder make together, whatever series they say to be of, and its problems."""
    tree = read_series(files, num_workers=1)
    problems = [
        f"{file.name} cannot be read: it is no DICOM file, or damaged; copy it again." for file in tree.unreadable
    ]
    if not tree.series:
        return None, problems
    series = _joined(tree.series) if len(tree.series) > 1 else tree.series[0]
    found = series_problems(series)
    if found and len(tree.series) > 1:
        counts = " and ".join(str(len(each.files)) for each in tree.series)
        problems.append(f"holds {len(tree.series)} series, of {counts} files; keep the files of one.")
    return series, problems + found


def _joined(parts: Sequence[DicomSeries]) -> DicomSeries:
    slices = [slice_ for part in parts for slice_ in part.slices]
    if all(len(slice_.position) == 3 and len(slice_.orientation) == 6 for slice_ in slices):
        normal = np.cross(*np.reshape(slices[0].orientation, (2, 3)))
        slices.sort(key=lambda slice_: float(np.dot(slice_.position, normal)))
    return DicomSeries(tuple(slices))


def _follows_names(series: DicomSeries, files: Sequence[Path]) -> bool:
    names, order = list(map(str, files)), list(series.files)
    return order in (names, names[::-1])


def _picture_problems(case: Case, size: Sequence[int], values: Mapping[int, int]) -> list[Problem]:
    """Each kind of problem once, however many pictures have it, at the first of them."""
    files: dict[str, list[Path]] = defaultdict(list)
    odd: dict[int, Path] = {}
    for file in case.label:
        try:
            picture = _read_picture(file)
        except ValueError as error:
            files[str(error)].append(file)
            continue
        if size and picture.shape != tuple(size)[::-1]:
            shown = [" x ".join(map(str, each)) for each in (picture.shape[::-1], size)]
            files[f"has {shown[0]} pixels, its slice {shown[1]}; download it again."].append(file)
        for value in set(np.unique(picture).tolist()) - {0, *values}:
            odd.setdefault(value, file)
    problems = [
        Problem(case.name, own[0], text if len(own) == 1 else f"{text} So it is with {len(own)} pictures.")
        for text, own in files.items()
    ]
    return problems + ([unknown_value_problem(case.name, min(odd.values()), sorted(odd), values)] if odd else [])


def _read_picture(file: Path) -> NDArray[np.uint8]:
    """Gray values (rows, columns) of a picture."""
    try:
        check_picture(file)
        with Image.open(file) as picture:
            pixels = np.asarray(picture)
    except Exception as error:  # whatever damage makes a decoder raise
        reason = type(error.__cause__ or error).__name__
        raise ValueError(f"cannot be read ({reason}); download it again.") from error
    if pixels.ndim != 2:
        raise ValueError(
            f"has {pixels.shape[-1]} color channels; expected a picture of gray values. Download it again."
        )
    if pixels.max(initial=0) > 255:
        raise ValueError(f"holds gray values up to {pixels.max()}; expected 8 bits a pixel. Download it again.")
    return pixels.astype(np.uint8)


def _classes(picture: NDArray[np.uint8], values: Mapping[int, int]) -> NDArray[np.uint8]:
    table = np.arange(256, dtype=np.uint8)
    table[list(values)] = list(values.values())
    return table[picture]
