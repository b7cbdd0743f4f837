# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.config import PathLike

import monai_fewshot
from monai_fewshot.apps.bundles.bundle_step import setting_names
from monai_fewshot.apps.command.problems import ScanProblem, write_problems
from monai_fewshot.apps.command.running import StepRunner, step_runner
from monai_fewshot.apps.command.scan_sources import write_scan_list
from monai_fewshot.apps.command.segmented_scans import forget_masks, note_masks
from monai_fewshot.apps.prepare.sources.hashing import hash_file
from monai_fewshot.data import LoadScand
from monai_fewshot.handlers import OutputFiles, ScanResults
from monai_fewshot.metrics import QUALITY_TABLE, PredictedQuality
from monai_fewshot.utils import atomic_path, check_device_settings

from .changes import CHANGE_TABLE, MaskChange, compare_masks, write_changes
from .corrections import find_corrections
from .examples import RoundExamples
from .mask_folder import MaskFolder
from .round_start import PREDICTED, begin_round
from .rounds import RefineRound, latest_corrections

__all__ = ["LEARNING_RATE", "RefinedFolder", "refine", "refine_minutes"]

MINUTES = {"cpu": 2.0, "cuda": 1.0}
LEARNING_RATE = 0.001


@dataclass(frozen=True)
class RefinedFolder:
    """What :func:`refine` made.

    Attributes:
        masks: file of the mask by name of the scan.
        corrected: names of the scans whose masks a person has corrected, in this round and before.
        changes: Dice between the masks before and after, by scan and class.
        problems: of the scans whose masks could not be made anew.
        page: pictures before and after.
        table: of the changes.
        round: folder of what was before, ``before``, and of the corrected masks, ``corrected``.
    """

    masks: Mapping[str, Path]
    corrected: tuple[str, ...]
    changes: tuple[MaskChange, ...]
    problems: tuple[ScanProblem, ...]
    page: Path
    table: Path
    round: Path


def refine_minutes(device: str | None = None) -> float:
    """Minutes of training where none are given."""
    kind = torch.device(device).type if device else ("cuda" if torch.cuda.is_available() else "cpu")
    return MINUTES.get(kind, MINUTES["cpu"])


def refine(
    masks: PathLike,
    corrected: Sequence[PathLike] = (),
    *,
    touched_only: bool = False,
    minutes: float | None = None,
    device: str | None = None,
    say: Callable[[str], None] = print,
) -> RefinedFolder:
    """Learn from corrected masks, and make all other masks anew.

    The network goes on from where it was, with the corrected scans as further examples. A corrected mask is the scan's
    mask from then on, and no command writes another one. The masks and the network as they were, and the corrected
    files, are kept in ``MASKS/rounds/N``. The same call goes on where it was interrupted.

    Args:
        masks: folder of masks that :func:`monai_fewshot.segment` has written.
        corrected: files ``NAME_seg`` or ``NAME`` after their scans, of any format of a label, or folders of them. Masks
            that were changed in the folder itself count too.
        touched_only: whether only slices in which a corrected mask differs from the predicted one count as annotated;
            nothing is known then of the others. Defaults to False: the whole mask counts.
        minutes: of training. Defaults to None: 2 on a CPU, 1 on a GPU.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``. Defaults to None: a GPU where there is one.
        say: is told what happens, in sentences.

    Returns:
        Masks and changes.

    Raises:
        FileNotFoundError: where a file or folder is not there, or a folder holds no model.
        ValueError: for bad input, before anything is computed.
        RuntimeError: where training or segmentation fails.
        KeyboardInterrupt: on Ctrl+C; the same call goes on from there.
    """
    if minutes is not None and not minutes > 0:
        raise ValueError(f"--minutes is {minutes:g}: give more than 0.")
    if device is not None:
        check_device_settings(device)
    folder = MaskFolder.open(masks, device)
    method = folder.steps.method
    if not method.training or "start_from" not in setting_names(method.bundle, method.steps[method.training[-1]]):
        raise ValueError(
            f"{folder.path} holds masks of the method {method.name}, whose network cannot go on from corrected masks: "
            "segment with self_training, or give corrected masks as further --example."
        )
    with step_runner(method, folder.steps.model_folder) as runner:
        return _Refinement(folder, runner, say).run(corrected, touched_only, minutes or refine_minutes(device))


class _Refinement:
    """The steps to what is asked for."""

    def __init__(self, masks: MaskFolder, runner: StepRunner, say: Callable[[str], None]) -> None:
        self.masks = masks
        self.steps = masks.steps
        self.runner = runner
        self.say = say

    def run(self, paths: Sequence[PathLike], touched_only: bool, minutes: float) -> RefinedFolder:
        """Do it."""
        rounds = self.masks.rounds
        new = self._new_corrections(paths)
        if new:
            examples = RoundExamples(self.masks, latest_corrections(rounds) | dict.fromkeys(new))
            examples.check()
            current = begin_round(self.masks, new, touched_only, minutes, self._predict, self.say)
            rounds = [*rounds, current]
        elif not rounds:
            raise ValueError(
                f"No mask is corrected: give --corrected FILE, or change masks in {self.masks.path} and run this again."
            )
        else:
            current = rounds[-1]
            if current.is_done:
                self.say("All corrected masks are learned from already. Correct others, or these once more.")
                return self._result(rounds, ())
            self.say(f"Going on with round {current.number}.")
        try:
            if not current.is_trained:
                self._train(rounds)
                current = current.changed(is_trained=True)
            return self._finish([*rounds[:-1], current])
        except (ValueError, OSError) as error:
            raise RuntimeError(str(error)) from error

    def _new_corrections(self, paths: Sequence[PathLike]) -> dict[str, Path]:
        given, edited = find_corrections(paths, set(self.masks.scans)), self.masks.edited()
        for name in sorted(given.keys() & edited.keys()):
            if given[name] != edited[name] and hash_file(given[name]) != hash_file(edited[name]):
                raise ValueError(f"{given[name]} and {edited[name]} are both corrections of {name}: keep one of them.")
        for name, file in edited.items():
            if name not in given:
                self.say(f"{file} was changed since it was written, and counts as corrected.")
        known = latest_corrections(self.masks.rounds)
        found = edited | given
        return {
            name: file for name, file in found.items() if name not in known or known[name].sha256 != hash_file(file)
        }

    def _predict(self, names: Sequence[str], folder: Path) -> dict[str, Path]:
        """Make the masks of scans anew with the network as it is, in a folder."""
        self.say(f"Segmenting {len(names)} scan(s) to see which slices were touched.")
        scans = [self.masks.scans[name] for name in names]
        files = OutputFiles(folder, formats="png" if self.steps.pictures else "nifti")
        settings = {
            **self.steps.common_settings(write_scan_list(folder / "scans", scans, self.masks.classes)),
            "checkpoint": self.steps.model_folder / "model.pt",
            "output_dir": folder,
            "outputs": list(files.formats),
            "overwrite": True,
        }
        StepRunner(self.steps.method, folder, self.runner.processes, self.runner.lock).run("inference", settings)
        return {name: files.mask(name, files.formats[0]) for name in names}

    def _train(self, rounds: Sequence[RefineRound]) -> None:
        current = rounds[-1]
        examples = RoundExamples(self.masks, latest_corrections(rounds))
        dataset = write_scan_list(current.folder / "training_scans", list(self.masks.scans.values()), current.classes)
        settings: dict[str, Any] = {
            "dataset_dir": dataset,
            **examples.settings(),
            "ckpt_dir": current.folder,
            "resume": True,
            "seed": self.masks.origin.seed,
            "minutes": current.minutes,
            "start_from": current.before / "model.pt",
            "optimizer#lr": LEARNING_RATE,
        }
        if self.steps.device is not None:
            settings["device"] = self.steps.device
        self.say(
            f"Learning from {len(examples.images)} examples for {current.minutes:g} minutes. Ctrl+C interrupts; the "
            "same command goes on."
        )
        runner = StepRunner(self.steps.method, current.folder, self.runner.processes, self.runner.lock)
        for step in self.steps.method.training:
            runner.run(step, settings)
            for warning in runner.warnings(step):
                self.say(f"WARNING: {warning}")

    def _finish(self, rounds: Sequence[RefineRound]) -> RefinedFolder:
        """Put the network in its place, and make all masks anew but the corrected ones."""
        current = rounds[-1]
        with atomic_path(self.steps.model_folder / "model.pt") as temporary:
            shutil.copyfile(current.model, temporary)
        corrections = latest_corrections(rounds)
        self._write_corrected(current)
        others = [scan for name, scan in self.masks.scans.items() if name not in corrections]
        problems = self.steps.segment_scans(self.runner, self.masks.origin, others, self.say, overwrite=True)
        write_problems(self.masks.path / "problems.csv", problems)
        self._compare(current, corrections)
        current.changed(is_done=True)
        return self._result(rounds, problems)

    def _write_corrected(self, current: RefineRound) -> None:
        """Make corrected masks the masks of their scans; the tables take them to be right."""
        scans, load = self.masks.scans, LoadScand()
        results = ScanResults(self.steps.files, list(scans.values()), load, current.classes)
        for correction in current.corrections:
            files = [self.steps.files.mask(correction.scan, kind).name for kind in self.steps.files.formats]
            forget_masks(self.steps.model_folder, files)
            pair = {"image": scans[correction.scan]["image"], "label": str(correction.label)}
            results.write(correction.scan, load(pair)["label"])
            note_masks(self.steps.model_folder, self.steps.files.masks()[correction.scan])
        quality = [
            PredictedQuality(correction.scan, number, name, 1.0, 1.0, 1.0)
            for correction in current.corrections
            for number, name in current.classes.items()
        ]
        QUALITY_TABLE.add(self.steps.files.quality_table, quality)

    def _compare(self, current: RefineRound, corrections: Mapping[str, Any]) -> None:
        comparisons = []
        for name, scan in self.masks.scans.items():
            mask = self.masks.mask(name)
            kept = [folder / mask.name for folder in (current.folder / PREDICTED, current.before)]
            before = next(file for file in kept if file.is_file())
            comparisons.append(compare_masks(scan, before, mask, current.classes))
        made_by = {"name": f"{self.steps.method.name}, round {current.number}", "version": monai_fewshot.__version__}
        write_changes(self.masks.path, comparisons, current.classes, list(corrections), made_by)

    def _result(self, rounds: Sequence[RefineRound], problems: Sequence[ScanProblem]) -> RefinedFolder:
        masks = self.steps.files.masks()
        table = self.masks.path / "changes.csv"
        return RefinedFolder(
            masks={name: masks[name][0] for name in self.masks.scans if name in masks},
            corrected=tuple(sorted(latest_corrections(rounds))),
            changes=tuple(CHANGE_TABLE.read(table)),
            problems=tuple(problems),
            page=self.masks.path / "changes.html",
            table=table,
            round=rounds[-1].folder,
        )
