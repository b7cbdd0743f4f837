# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from monai.config import PathLike

from monai_fewshot.apps.prepare.cases.case import Case, Problem
from monai_fewshot.apps.prepare.dataset_description import DatasetDescription
from monai_fewshot.apps.prepare.sources.data_source import open_source
from monai_fewshot.data.scans.scan_folder import DATASET_JSON, load_class_names, load_scans, read_dataset_json

from .volume_sets import choose_channel, find_layout, prepare_volume_set

__all__ = ["DescribedSet", "channel_names", "describe_set", "find_decathlon_cases", "modality_of", "prepare_decathlon"]


def prepare_decathlon(
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
    """Prepare a task of the Medical Segmentation Decathlon, or any set in its layout.

    Intensities are prepared as in the few-shot benchmarks, MR by cutting the bright end, CT by a window; the grid is
    kept unless ``spacing``, ``border`` or ``size`` is given. The annotated scans of ``training`` are prepared.

    Args:
        source: the folder with ``dataset.json``, one that holds it, or an archive such as ``Task09_Spleen.tar``.
        output_dir: folder to write to.
        channel: number or name of the channel of 4D images, such as "FLAIR"; names are those of ``modality`` in
            ``dataset.json``. Defaults to None, which does where there is but one.
        modality: "MR", "CT" or another, whose intensities are kept. Defaults to None, what ``dataset.json`` says.
        spacing: of rows, columns and slices in mm, for MR; 0 keeps that of an axis.
        clip_percent: how many percent of a volume's voxels are clipped, the brightest, for MR.
        window: lowest and highest Hounsfield unit, for CT.
        values: what these become, for CT.
        border: pixels to cut off at each side of a slice, for CT; the benchmarks have 32 for slices of 512 x 512.
        size: (H, W) of the slices in pixels; the benchmarks have (256, 256).
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
    described = describe_set(open_source(source, output_dir), channel, modality)
    cases, problems = find_decathlon_cases(described.folder)
    description = replace(described.description, class_names=load_class_names(described.folder))
    return prepare_volume_set(
        cases, problems, description, described.folder, output_dir, described.channel, numbers, **arguments
    )


class DescribedSet(NamedTuple):
    """A data set that has a ``dataset.json``.

    Args:
        folder: which has it.
        content: of the file.
        channel: number of the channel to take.
        description: what the file says, but for the classes.
    """

    folder: Path
    content: dict[str, Any]
    channel: int
    description: DatasetDescription


def describe_set(source: Path, channel: int | str | None, modality: str | None) -> DescribedSet:
    """Read the ``dataset.json`` of a download.

    Args:
        source: folder that has it at any depth.
        channel: number or name of a channel, or None.
        modality: of the channel; None for what the file says.

    Returns:
        The data set.

    Raises:
        ValueError: where there is none, it is malformed, or the channel is not one of its.
    """
    folder = find_layout(source, DATASET_JSON)
    content = read_dataset_json(folder)
    names = channel_names(content, folder)
    number = choose_channel(names, channel)
    description = DatasetDescription(
        str(content.get("name", folder.name)),
        modality or modality_of(names[number] if names else ""),
        {},
        *(str(content.get(key, "")) for key in ("description", "licence", "reference")),
    )
    return DescribedSet(folder, content, number, description)


def find_decathlon_cases(folder: Path) -> tuple[list[Case], list[Problem]]:
    """Find the training scans of a data set in the layout of the Decathlon, and what is wrong with the list.

    Args:
        folder: which has ``dataset.json``.

    Returns:
        The scans, and the problems: another number of scans than ``numTraining``, and files that are not listed.

    Raises:
        ValueError: where ``dataset.json`` is malformed.
    """
    scans = load_scans(folder)
    cases = [
        Case(scan["name"], (Path(scan["image"]),), (Path(scan["label"]),) if "label" in scan else ()) for scan in scans
    ]
    stated = read_dataset_json(folder).get("numTraining", len(cases))
    problems = []
    if stated != len(cases):
        text = f"says numTraining is {stated}, and lists {len(cases)} scans; download it again, or correct the number."
        problems.append(Problem("", folder / DATASET_JSON, text))
    listed = {path for case in cases for path in case.files}
    for file in sorted({path for parent in {p.parent for p in listed} if parent.is_dir() for path in parent.iterdir()}):
        if file not in listed and not file.name.startswith(".") and file.name.endswith((".nii", ".nii.gz")):
            problems.append(Problem("", file, f"is not listed in {DATASET_JSON}; add it there, or remove it."))
    return cases, problems


def channel_names(content: dict[str, Any], folder: Path) -> list[str]:
    """Names of the channels in ``dataset.json``, by number.

    Args:
        content: of ``dataset.json``, whose ``modality`` or ``channel_names`` has names by number.
        folder: where it is, for error texts.

    Returns:
        The names; empty where it has none.

    Raises:
        ValueError: where they are not numbered from 0.
    """
    names = content.get("channel_names", content.get("modality", {}))
    try:
        numbers = {int(number): str(name) for number, name in names.items()}
        return [numbers[number] for number in range(len(numbers))]
    except (AttributeError, KeyError, ValueError) as error:
        raise ValueError(
            f'{folder / DATASET_JSON}: the channels are {names!r}; expected names by number such as {{"0": "CT"}}.'
        ) from error


def modality_of(channel: str) -> str:
    """Modality of a channel: "CT", "MR" for the names of its contrasts, or the name as it is."""
    name = channel.upper()
    if name == "CT" or name.startswith(("CT ", "CT_", "CT-")):
        return "CT"
    contrasts = ("MR", "T1", "T2", "FLAIR", "ADC", "DWI", "PD", "BSSFP", "LGE")
    return "MR" if name.startswith(contrasts) else channel
