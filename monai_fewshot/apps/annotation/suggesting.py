# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monai.config import PathLike

from monai_fewshot.apps.command.scan_sources import list_scans
from monai_fewshot.apps.command.survey import survey_scans
from monai_fewshot.data import Scan, VolumePreparation, count_channels, scan_axes
from monai_fewshot.metrics import QUALITY_TABLE
from monai_fewshot.utils import process_device, write_atomically
from monai_fewshot.workflows import TrainedModel

from .coverage import Choice, choose_by_coverage
from .mask_folder import MaskFolder, same_image
from .rounds import corrected_scans
from .scan_features import feature_distances, scan_features
from .suggested_slices import SliceChooser

__all__ = ["Suggestion", "suggest"]

TABLE = "suggestions.csv"
FAR, NEAR = 1.0, 0.7
LEAST_NEED = 0.02
"""Of a mask that is predicted to be right: it may be wrong all the same."""


@dataclass(frozen=True)
class Suggestion:
    """A scan whose annotation would help.

    Attributes:
        rank: from 1; each takes those before it into account.
        scan: its name.
        predicted_dice: mean over the classes of its mask; NaN where nothing is predicted.
        distance: to the nearest annotated scan or earlier suggestion, 1 being as far as scans usually are from one
            another; NaN for the first one of all.
        alike: number of other scans that are nearer to it than to those.
        slices: numbers of the slices to begin with, from 0, along the axis that scans are cut along.
        reason: in a few words.
    """

    rank: int
    scan: str
    predicted_dice: float
    distance: float
    alike: int
    slices: tuple[int, ...]
    reason: str


def suggest(
    folder: PathLike,
    number: int = 3,
    slices: int = 3,
    *,
    candidates: Collection[str] | None = None,
    output: PathLike | None = None,
    device: str | None = None,
    say: Callable[[str], None] = print,
) -> list[Suggestion]:
    """Tell which scans, and which slices of them, to annotate next, and why.

    Before any annotation, the scan in the middle of all others comes first, then scans that stand for many which are
    unlike those before. With masks, scans whose masks are predicted to be poor count more, and scans like an annotated
    one less (:func:`monai_fewshot.apps.annotation.coverage.choose_by_coverage`).

    Args:
        folder: masks that :func:`monai_fewshot.segment` has written, or a folder of scans.
        number: how many scans.
        slices: how many slices of each.
        candidates: names of the scans that may be suggested. Defaults to None: all that are not annotated.
        output: table to write. Defaults to None: ``suggestions.csv`` in the folder of masks, or, for scans, in the
            current folder.
        device: to compute on. Defaults to None: a GPU where there is one.
        say: is told what happens.

    Returns:
        The suggestions, the first one first.

    Raises:
        FileNotFoundError: where the folder is not there or holds no scan.
        ValueError: for a number below 1, an unknown candidate, or where no scan is left.
    """
    if number < 1 or slices < 0:
        raise ValueError(f"--number is {number}, --slices {slices}: give at least 1 scan, and 0 or more slices.")
    root = Path(folder).expanduser().absolute()
    state = _of_masks(root, device) if (root / "model" / "segment.json").is_file() else _of_scans(root, say)
    unknown = sorted(set(candidates or ()) - {scan["name"] for scan in state.scans})
    if unknown:
        raise ValueError(f"There are no scans called {', '.join(unknown)} in {root}.")
    free = [
        place
        for place, scan in enumerate(state.scans)
        if place not in state.annotated and (candidates is None or scan["name"] in candidates)
    ]
    if not free:
        raise ValueError(f"No scan is left to suggest: all {len(state.scans)} scans of {root} are annotated.")
    distances = feature_distances(scan_features(state.scans, state.chooser.preparation))
    choices = choose_by_coverage(distances, number, state.annotated, state.need, free)
    found = [_suggestion(rank, choice, state, slices) for rank, choice in enumerate(choices, 1)]
    table = Path(output).expanduser() if output is not None else state.table
    _write(table, found)
    say(f"Suggestions: {table}")
    return found


@dataclass(frozen=True)
class _State:
    """What is known of a folder; ``need`` and ``dice`` are in the order of the scans."""

    scans: Sequence[Scan]
    annotated: Collection[int]
    need: np.ndarray | None
    dice: Mapping[str, float]
    chooser: SliceChooser
    table: Path


def _of_scans(root: Path, say: Callable[[str], None]) -> _State:
    found, problems = list_scans(root)
    survey = survey_scans(found, problems=problems)
    for problem in survey.problems:
        say(f"LEFT OUT: {problem.file}: {problem.problem}. {problem.remedy}")
    usable = {scan.name for scan in survey.usable}
    scans = [scan for scan in found if scan["name"] in usable]
    if not scans:
        raise ValueError(f"None of the {len(found)} scans in {root} can be used.")
    preparation = VolumePreparation(axes=scan_axes(scans[0]), channels=count_channels(scans[0]))
    return _State(scans, (), None, {}, SliceChooser(preparation), Path.cwd() / TABLE)


def _of_masks(root: Path, device: str | None) -> _State:
    masks = MaskFolder.open(root, device)
    scans = list(masks.scans.values())
    images = [image for image, _ in masks.steps.pairs]
    corrected = corrected_scans(root)
    same = [[same_image(scan, image) for image in images] for scan in scans]
    annotated = [place for place, scan in enumerate(scans) if scan["name"] in corrected or any(same[place])]
    names = {scan["name"] for scan in scans}
    further = [
        {"name": f"example {place}", "image": str(image)}
        for place, image in enumerate(images)
        if not any(of_scan[place] for of_scan in same) and Path(image).is_file()
    ]
    annotated += range(len(scans), len(scans) + len(further))
    rows: dict[str, list[float]] = {}
    for row in QUALITY_TABLE.read(masks.steps.files.quality_table):
        if row.scan in names and not math.isnan(row.predicted_dice):
            rows.setdefault(row.scan, []).append(row.predicted_dice)
    dice = {name: float(np.mean(values)) for name, values in rows.items()}
    usual = float(np.mean(list(dice.values()))) if dice else 0.0
    need = [max(LEAST_NEED, 1 - dice.get(scan["name"], usual)) for scan in scans] + [0.0] * len(further)
    model = TrainedModel(masks.steps.model_folder / "model.pt", device or process_device())
    is_trained = Path(model.checkpoints[0]).is_file()
    first = scans[0]
    preparation = model.preparation if is_trained else VolumePreparation(channels=count_channels(first))
    chooser = SliceChooser(preparation.on_axes_of(first), model if is_trained and model.classes is not None else None)
    return _State([*scans, *further], annotated, np.array(need), dice, chooser, root / TABLE)


def _suggestion(rank: int, choice: Choice, state: _State, slices: int) -> Suggestion:
    scan = state.scans[choice.item]
    dice = state.dice.get(scan["name"], math.nan)
    distance = math.nan if math.isinf(choice.distance) else choice.distance
    return Suggestion(
        rank=rank,
        scan=scan["name"],
        predicted_dice=dice,
        distance=distance,
        alike=choice.alike,
        slices=state.chooser(scan, slices) if slices else (),
        reason=_reason(dice, distance, choice.alike, state.dice),
    )


def _reason(dice: float, distance: float, alike: int, all_dice: Mapping[str, float]) -> str:
    """Say why in a few words."""
    if math.isnan(distance):
        return "in the middle of all scans"
    parts = []
    if not math.isnan(dice):
        worse = sum(other < dice for other in all_dice.values())
        place = "the lowest" if not worse else f"{worse} of {len(all_dice)} are lower"
        parts.append(f"predicted Dice {dice:.2f} ({place})")
    if distance > FAR:
        parts.append("unlike what is annotated")
    elif distance < NEAR:
        parts.append("like what is annotated")
    parts.append(f"stands for {alike} other scan{'' if alike == 1 else 's'}" if alike else "stands for itself alone")
    return ", ".join(parts)


def _write(path: Path, suggestions: Sequence[Suggestion]) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["rank", "scan", "predicted_dice", "distance", "alike", "slices", "reason"])
    for each in suggestions:
        figures = ["" if math.isnan(value) else f"{value:.4f}" for value in (each.predicted_dice, each.distance)]
        writer.writerow([each.rank, each.scan, *figures, each.alike, " ".join(map(str, each.slices)), each.reason])
    write_atomically(path, text.getvalue())
