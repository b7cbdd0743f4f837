# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from monai.data import MetaTensor

from monai_fewshot.apps.prepare.sources.hashing import hash_file
from monai_fewshot.data import LoadScand, count_channels
from monai_fewshot.data.layouts.scan_files import SEGMENTATION_SUFFIXES, volume_suffix
from monai_fewshot.handlers import OutputFiles, ScanResults
from monai_fewshot.utils import atomic_path
from monai_fewshot.workflows import TrainedModel

from .corrections import add_file_classes, check_scan_of, read_correction, touched_slices
from .mask_folder import MaskFolder
from .rounds import Correction, RefineRound, latest_corrections, rounds_folder

__all__ = ["PREDICTED", "begin_round"]

PREDICTED = "predicted"
"""Folder in a round, of the predictions in the place of which a person's masks stood."""


def begin_round(
    masks: MaskFolder,
    corrected: Mapping[str, Path],
    touched_only: bool,
    minutes: float,
    predict: Callable[[Sequence[str], Path], Mapping[str, Path]],
    say: Callable[[str], None],
) -> RefineRound:
    """Check corrected masks, and keep them and all that a round will replace in the round's own folder.

    Nothing outside of that folder is changed. ``round.json``, which makes it a round, is written last.

    Args:
        masks: the folder of masks.
        corrected: file by name of the scan.
        touched_only: whether only slices count as annotated in which a mask differs from the one that was predicted.
        minutes: of the training.
        predict: makes the masks of some scans anew, by their names, in a folder; called for the touched slices of masks
            that were changed in their place.
        say: is told what may be wrong.

    Returns:
        The round.

    Raises:
        ValueError: where corrected masks cannot be used; all problems are listed.
    """
    number = 1 + max((each.number for each in masks.rounds), default=0)
    folder = rounds_folder(masks.path) / str(number)
    labels, classes = _read(masks, corrected, say)
    _keep_before(masks, folder / "before")
    files = OutputFiles(folder / "labels", formats="png" if masks.steps.pictures else "nifti")
    writer = ScanResults(files, list(masks.scans.values()), LoadScand(), classes)
    in_place = [name for name, file in corrected.items() if file.parent == masks.path and touched_only]
    predicted = predict(in_place, folder / PREDICTED) if in_place else {}
    corrections = []
    for name, file in corrected.items():
        writer.write(name, labels[name])
        written = files.mask(name, files.formats[0])
        copy = folder / "corrected" / f"{name}{_suffix(file)}"
        _copy(file, copy)
        slices = None
        if touched_only:
            slices = _slices(masks, name, file, written, predicted.get(name) or masks.mask(name))
        corrections.append(Correction(name, hash_file(file), copy, written, slices))
    return RefineRound(folder, tuple(corrections), classes, touched_only, minutes).write()


def _read(
    masks: MaskFolder, corrected: Mapping[str, Path], say: Callable[[str], None]
) -> tuple[dict[str, MetaTensor], dict[int, str]]:
    """Read corrected masks; classes are the known ones and those that the masks add."""
    labels, problems, known = {}, [], masks.classes
    channels = count_channels(next(iter(masks.scans.values())))
    classes = dict(known)
    made = {name: file for name in masks.scans if (file := masks.mask(name)).name.endswith(".nii.gz")}
    for name, file in corrected.items():
        try:
            label = read_correction(file, masks.scans[name], channels)
            labels[name], classes = add_file_classes(file, label, classes)
            check_scan_of(file, labels[name], name, made)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    for name, file in corrected.items():
        shown = {int(value) for value in torch.unique(labels[name].as_tensor()).tolist()}
        if lacking := [f"{number} ({classes[number]})" for number in known if number not in shown]:
            say(
                f"WARNING: {file} does not show {', '.join(lacking)}: it is learned that this scan shows none of it. "
                "Draw it where it is there."
            )
        if new := [f"{number} ({classes[number]})" for number in sorted(shown - {0} - set(known))]:
            others = ", ".join(Path(image).name for image, _ in masks.steps.pairs)
            say(
                f"WARNING: {file} shows a new class, {', '.join(new)}: the network learns it from the masks that show "
                f"it alone. In the other examples ({others}) its voxels count as background: correct their masks too "
                "where it is there. A wrong number on a few voxels would be a new class as well."
            )
    return labels, classes


def _keep_before(masks: MaskFolder, folder: Path) -> None:
    """Copy all masks, their tables and the network."""
    files = masks.steps.files
    tables = [table for table in (files.table, files.quality_table) if table.is_file()]
    made = [file for each in files.masks().values() for file in each]
    for file in [*made, *tables, masks.steps.model_folder / "model.pt"]:
        _copy(file, folder / file.name)


def _slices(masks: MaskFolder, name: str, file: Path, label: Path, before: Path) -> tuple[int, ...] | None:
    """Slices of a correction that count as annotated, those of an earlier one of the scan among them."""
    preparation = TrainedModel(masks.steps.model_folder / "model.pt", "cpu").preparation
    touched = touched_slices(label, before, masks.scans[name], preparation)
    earlier = latest_corrections(masks.rounds).get(name)
    if earlier is not None and earlier.slices is None:
        return None
    slices = tuple(sorted({*touched, *(() if earlier is None else earlier.slices or ())}))
    if not slices:
        raise ValueError(
            f"{file} is the same as the mask that was made: with --touched-only there is nothing to learn from it. "
            "Leave it out, or leave --touched-only out to confirm the whole mask."
        )
    return slices


def _suffix(file: Path) -> str:
    known = (*SEGMENTATION_SUFFIXES, volume_suffix(file), file.suffix)
    return next(suffix for suffix in known if suffix and file.name.lower().endswith(suffix.lower()))


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target, source.stat().st_size) as temporary:
        shutil.copyfile(source, temporary)
