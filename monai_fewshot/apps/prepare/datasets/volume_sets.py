# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from monai.config import PathLike

from monai_fewshot.apps.prepare.cases.case import Case, Problem
from monai_fewshot.apps.prepare.cases.file_checks import read_header
from monai_fewshot.apps.prepare.cases.nifti_scans import load_nifti_scan, unknown_values
from monai_fewshot.apps.prepare.cases.numbered_files import walk
from monai_fewshot.apps.prepare.dataset_description import DatasetDescription
from monai_fewshot.apps.prepare.runner import prepare_dataset
from monai_fewshot.transforms import ct_preparation, mr_preparation
from monai_fewshot.utils import EpisodeKeys

__all__ = ["choose_channel", "find_layout", "load_channel", "prepare_volume_set"]


def prepare_volume_set(
    cases: Sequence[Case],
    problems: Sequence[Problem],
    description: DatasetDescription,
    source: PathLike,
    output_dir: PathLike,
    channel: int,
    numbers: Mapping[str, Any],
    **arguments: Any,
) -> Path:
    """Prepare a data set of volumes that follows a layout, with the chain of its modality.

    Args:
        cases: the scans.
        problems: what is wrong with them.
        description: of the data set; "CT" and "MR" have chains, scans of other modalities keep their values.
        source: folder that the files are in.
        output_dir: folder to write to.
        channel: which of the channels of a 4D file to take, from 0.
        numbers: ``spacing``, ``clip_percent``, ``window``, ``values``, ``border``, ``size`` and ``orientation`` of
            :func:`monai_fewshot.transforms.mr_preparation` and :func:`monai_fewshot.transforms.ct_preparation`.
        arguments: further ones of :func:`prepare_dataset`.

    Returns:
        The folder.
    """
    chain, used = _chain(description.modality, numbers)
    problems = [*problems, *_channel_problems(cases, channel)]
    if description.class_names:
        problems += unknown_values(cases, description.class_names)
    settings = {"channel": channel, "modality": description.modality, **used}
    load = partial(load_channel, channel=channel)
    return prepare_dataset(cases, problems, load, chain, description, source, output_dir, settings, **arguments)


def load_channel(case: Case, channel: int = 0) -> dict[str, Any]:
    """Read the image and label of a scan on their own grid.

    Args:
        case: a scan of one file each.
        channel: of the image.

    Returns:
        ``image`` and, where there is one, ``label``, each (1, H, W, D).
    """
    scan = load_nifti_scan(case)
    return {**scan, EpisodeKeys.IMAGE: scan[EpisodeKeys.IMAGE][channel : channel + 1]}


def choose_channel(names: Sequence[str], channel: int | str | None) -> int:
    """Find a channel by its number or name.

    Args:
        names: of the channels of the data set.
        channel: number, name, or None where there is but one.

    Returns:
        Its number, from 0.

    Raises:
        ValueError: where there is no such channel, or the choice is open.

    Example:
        >>> choose_channel(["FLAIR", "T1w", "T2w"], "t2w")
        2
    """
    lower = [name.lower() for name in names]
    if channel is None and len(names) <= 1:
        return 0
    if isinstance(channel, int) and 0 <= channel < max(1, len(names)):
        return channel
    if isinstance(channel, str) and lower.count(channel.lower()) == 1:
        return lower.index(channel.lower())
    choice = ", ".join(f"{number} ({name})" for number, name in enumerate(names))
    raise ValueError(f"channel is {channel!r}; the images of this data set have the channels {choice}: choose one.")


def find_layout(source: Path, marker: str) -> Path:
    """Find the folder that holds a file or folder, at any depth of a download.

    Args:
        source: the download.
        marker: name of what the folder holds.

    Returns:
        The folder.

    Raises:
        ValueError: where there is none, or more than one.
    """
    found = sorted(
        {path.parent for path in walk(source) if path.name == marker}, key=lambda path: (len(path.parts), path)
    )
    if not found:
        raise ValueError(f"source {source} holds no {marker}: give the folder or archive that has it.")
    others = [path for path in found[1:] if not path.is_relative_to(found[0])]
    if others:
        raise ValueError(f"source {source} holds several data sets, {found[0]} and {others[0]}: give one of them.")
    return found[0]


def _chain(modality: str, numbers: Mapping[str, Any]) -> tuple[Callable[[Any], Any], dict[str, Any]]:
    """The preparation of a modality and the numbers that it takes."""
    makers: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
        "CT": (ct_preparation, ("window", "values", "border", "size", "orientation")),
        "MR": (mr_preparation, ("spacing", "size", "clip_percent", "orientation")),
    }
    if modality not in makers:
        return dict, {}
    make, names = makers[modality]
    used = {name: numbers[name] for name in names}
    return make(**used), used


def _channel_problems(cases: Sequence[Case], channel: int) -> list[Problem]:
    """Scans whose file has other channels than the one to take."""
    problems = []
    for case in cases:
        try:
            header = read_header(case.image[0])
        except (OSError, ValueError):
            continue
        channels = header.size[3] if header is not None and len(header.size) > 3 else 1
        if channels <= channel:
            text = f"has {channels} channel(s), of which number {channel} is to be taken; choose another by channel."
            problems.append(Problem(case.name, case.image[0], text))
    return problems
