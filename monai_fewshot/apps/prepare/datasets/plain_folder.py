# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.utils import ensure_tuple

from monai_fewshot.apps.prepare.cases.case import Case, Problem
from monai_fewshot.apps.prepare.cases.nifti_scans import distinct_values
from monai_fewshot.apps.prepare.dataset_description import DatasetDescription
from monai_fewshot.apps.prepare.sources.data_source import open_source
from monai_fewshot.data.layouts.scan_files import VOLUME_SUFFIXES

from .volume_sets import find_layout, prepare_volume_set

__all__ = ["find_folder_cases", "prepare_folder"]


def prepare_folder(
    source: PathLike,
    output_dir: PathLike,
    name: str | None = None,
    images: str = "images",
    labels: str = "labels",
    label_suffix: str = "",
    class_names: Mapping[int, str] | Sequence[str] | None = None,
    channel: int = 0,
    modality: str = "",
    spacing: Sequence[float] | None = None,
    clip_percent: float = 0.5,
    window: Sequence[float] = (-125, 275),
    values: Sequence[float] = (0, 255),
    border: int = 0,
    size: Sequence[int] | None = None,
    orientation: str | None = None,
    workers: int | None = None,
    num_folds: int = 5,
    skip_broken: bool = False,
) -> Path:
    """Prepare volumes that lie in one folder, their labels of the same names in another beside it.

    Volumes are prepared as by :func:`monai_fewshot.apps.prepare.prepare_decathlon`; without ``modality`` their values
    are kept, so that what there is becomes a checked data set.

    Args:
        source: the folder that holds both, one that holds it, or an archive of either. NIfTI, NRRD and MetaImage files
            are read.
        output_dir: folder to write to.
        name: of the data set. Defaults to None, the name of the folder.
        images: name of the folder of images.
        labels: name of the folder of labels.
        label_suffix: what the names of labels have behind those of images, such as "_seg".
        class_names: name by number, or names in the order of the numbers from 1. Defaults to None: "class 1" and so on,
            for the values found in the NIfTI labels.
        channel: which channel of 4D images to take, from 0.
        modality: "MR", "CT" or another, whose intensities are kept.
        spacing: of rows, columns and slices in mm, for MR; 0 keeps that of an axis.
        clip_percent: how many percent of a volume's voxels are clipped, the brightest, for MR.
        window: lowest and highest Hounsfield unit, for CT.
        values: what these become, for CT.
        border: pixels to cut off at each side of a slice, for CT.
        size: (H, W) of the slices in pixels.
        orientation: axis codes such as "LAS", for all scans to lie one way; None leaves them.
        workers: processes, as for :func:`monai_fewshot.apps.prepare.prepare_dataset`.
        num_folds: folds of the cross-validation, 0 for none.
        skip_broken: whether to leave out scans that have problems instead of stopping.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: if there is no such source.
        ValueError: if there are problems, one line each, or an argument is out of its range.
        FileExistsError: if the folder holds something else.
    """
    folder = find_layout(open_source(source, output_dir), images)
    cases, problems = find_folder_cases(folder, images, labels, label_suffix)
    title = name or folder.name
    description = DatasetDescription(title, modality.upper(), _class_names(class_names, cases), f"From {folder.name}.")
    numbers: dict[str, Any] = {"spacing": spacing, "clip_percent": clip_percent, "window": window, "values": values}
    numbers |= {"border": border, "size": size, "orientation": orientation}
    arguments = {"workers": workers, "num_folds": num_folds, "skip_broken": skip_broken}
    return prepare_volume_set(cases, problems, description, folder, output_dir, channel, numbers, **arguments)


def find_folder_cases(
    folder: Path, images: str = "images", labels: str = "labels", label_suffix: str = ""
) -> tuple[list[Case], list[Problem]]:
    """Pair images and labels by name.

    Args:
        folder: which holds both folders.
        images: name of the folder of images.
        labels: name of the folder of labels.
        label_suffix: what the names of labels have behind those of images.

    Returns:
        The scans, and the problems: images without label or the other way round, and names that are there twice.
    """
    found, drawn = _by_stem(folder / images), _by_stem(folder / labels)
    cases, problems = [], []
    for stem, files in found.items():
        own = drawn.pop(stem + label_suffix, [])
        for files_of_one in (files, own):
            if len(files_of_one) > 1:
                names = ", ".join(file.name for file in files_of_one)
                problems.append(Problem(stem, files_of_one[0].parent, f"holds {names}; remove all but one."))
        if not own:
            text = f"has no label {stem}{label_suffix} in {labels}; add it, or remove the image."
            problems.append(Problem(stem, files[0], text))
        cases.append(Case(stem, (files[0],), tuple(own[:1])))
    for stem, files in drawn.items():
        problems.append(Problem(stem, files[0], f"has no image in {images}; add it, or remove the label."))
    return cases, problems


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        suffix = next((suffix for suffix in VOLUME_SUFFIXES if path.name.lower().endswith(suffix)), "")
        if suffix and not path.name.startswith("."):
            found[path.name[: -len(suffix)]].append(path)
    return found


def _class_names(names: Mapping[int, str] | Sequence[str] | None, cases: Sequence[Case]) -> dict[int, str]:
    if isinstance(names, Mapping):
        return {int(number): str(name) for number, name in names.items() if int(number) != 0}
    if names is not None:
        return {number: str(name) for number, name in enumerate(ensure_tuple(names), start=1)}
    labels = [path for case in cases for path in case.label if path.name.lower().endswith((".nii", ".nii.gz"))]
    found = {int(value) for path in labels for value in distinct_values(path) if value > 0 and value == int(value)}
    return {number: f"class {number}" for number in sorted(found)}
