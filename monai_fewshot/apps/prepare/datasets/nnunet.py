# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.config import PathLike

from monai_fewshot.apps.prepare.cases.case import Case, Problem
from monai_fewshot.apps.prepare.sources.data_source import open_source
from monai_fewshot.data.layouts.nnunet_layout import file_ending, names_of_labels, nnunet_files
from monai_fewshot.data.scans.scan_folder import DATASET_JSON, read_dataset_json

from .decathlon import describe_set
from .volume_sets import prepare_volume_set

__all__ = ["find_nnunet_cases", "nnunet_class_names", "prepare_nnunet"]


def prepare_nnunet(
    source: PathLike,
    output_dir: PathLike,
    channel: int | str | None = None,
    modality: str | None = None,
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
    """Prepare a data set in the layout of nnU-Net: ``imagesTr/NAME_0000.nii.gz``, ``labelsTr/NAME.nii.gz``.

    ``dataset.json`` may be of version 2 (``channel_names``, labels as numbers by name) or 1 (``modality``, names by
    number). Volumes are prepared as by :func:`monai_fewshot.apps.prepare.prepare_decathlon`.

    Args:
        source: the folder with ``dataset.json``, one that holds it, or an archive of either.
        output_dir: folder to write to.
        channel: number or name of the channel to take. Defaults to None, which does where there is but one.
        modality: "MR", "CT" or another, whose intensities are kept. Defaults to None, what ``dataset.json`` says.
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
    numbers: dict[str, Any] = {"spacing": spacing, "clip_percent": clip_percent, "window": window, "values": values}
    numbers |= {"border": border, "size": size, "orientation": orientation}
    arguments = {"workers": workers, "num_folds": num_folds, "skip_broken": skip_broken}
    folder, content, number, described = describe_set(open_source(source, output_dir), channel, modality)
    cases, problems = find_nnunet_cases(folder, number)
    description = replace(described, class_names=nnunet_class_names(content, folder))
    return prepare_volume_set(cases, problems, description, folder, output_dir, 0, numbers, **arguments)


def find_nnunet_cases(folder: Path, channel: int = 0) -> tuple[list[Case], list[Problem]]:
    """Find the training scans of a data set in the layout of nnU-Net, and what is wrong with it.

    Args:
        folder: which has ``dataset.json``, ``imagesTr`` and ``labelsTr``.
        channel: which of the files of an image to take.

    Returns:
        The scans, and the problems: images without label or the other way round, and another number of scans than
        ``numTraining``.
    """
    content = read_dataset_json(folder)
    ending = file_ending(content)
    own = f"_{channel:04d}{ending}"
    images, labels = nnunet_files(folder / "imagesTr", own), nnunet_files(folder / "labelsTr", ending)
    problems = [
        Problem(name, path, f"has no label {name}{ending} in labelsTr; add it, or remove the image.")
        for name, path in images.items()
        if name not in labels
    ] + [
        Problem(name, path, f"has no image {name}{own} in imagesTr; add it, or remove the label.")
        for name, path in labels.items()
        if name not in images
    ]
    stated, found = content.get("numTraining", len(labels)), len({*images, *labels})
    if stated != found:
        text = f"says numTraining is {stated}, and there are {found} scans; download again, or correct the number."
        problems.append(Problem("", folder / DATASET_JSON, text))
    return [Case(name, (images[name],), (labels[name],)) for name in images if name in labels], problems


def nnunet_class_names(content: Mapping[str, Any], folder: Path) -> dict[int, str]:
    """Read the classes of an nnU-Net data set, numbers by name (version 2) or names by number (version 1).

    Args:
        content: of ``dataset.json``. Of regions, which are lists of numbers, each number is called "class 1" and so on
            where it has no name of its own.
        folder: where it is, for error texts.

    Returns:
        Name by number, without background.

    Raises:
        ValueError: where labels are neither, or one is to be ignored, which few-shot labels know nothing of.
    """
    labels = content.get("labels")
    try:
        if not isinstance(labels, dict) or "ignore" in labels:
            raise ValueError
        return {number: name for number, name in names_of_labels(labels).items() if number != 0}
    except ValueError as error:
        raise ValueError(
            f'{folder / DATASET_JSON}: "labels" is {labels!r}; expected numbers by name such as {{"background": 0, '
            '"liver": 1}, and none to be ignored.'
        ) from error
