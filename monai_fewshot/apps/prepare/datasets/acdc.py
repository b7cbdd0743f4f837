# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.utils import ensure_tuple

from monai_fewshot.apps.prepare.cases.case import Case, Problem
from monai_fewshot.apps.prepare.cases.nifti_scans import load_nifti_scan, unknown_values
from monai_fewshot.apps.prepare.cases.numbered_files import find_numbered, nothing_found
from monai_fewshot.apps.prepare.dataset_description import DatasetDescription
from monai_fewshot.apps.prepare.runner import prepare_dataset
from monai_fewshot.apps.prepare.sources.data_source import open_source
from monai_fewshot.transforms import mr_preparation

__all__ = ["find_acdc_cases", "prepare_acdc"]

PATIENTS = tuple(range(1, 101))
PHASES = {"ED": "end-diastole", "ES": "end-systole"}
INFO = "Info.cfg"
DESCRIPTION = DatasetDescription(
    name="ACDC cine cardiac MR",
    modality="MR",
    class_names={1: "right ventricle", 2: "myocardium", 3: "left ventricle"},
    text="100 patients, end-diastole and end-systole of short-axis cine MR, on the scanner's own grid.",
    licence="CC BY-NC-SA 4.0",
    reference="O. Bernard et al., IEEE Transactions on Medical Imaging 37(11), 2018, "
    "https://www.creatis.insa-lyon.fr/Challenge/acdc",
)


def prepare_acdc(
    source: PathLike,
    output_dir: PathLike,
    patients: Sequence[int] = PATIENTS,
    spacing: Sequence[float] | None = None,
    size: Sequence[int] | None = None,
    clip_percent: float = 0,
    workers: int | None = None,
    num_folds: int = 5,
    skip_broken: bool = False,
) -> Path:
    """Prepare the annotated frames of the challenge ACDC, spacing and values kept.

    The download holds a folder ``patient001`` for each patient, with ``Info.cfg``, which names the frames of
    end-diastole (ED) and end-systole (ES), and for each of them ``patient001_frame01.nii.gz`` and
    ``patient001_frame01_gt.nii.gz``. Scans are named ``patient001_frame01`` and so on. No fold parts the frames of a
    patient.

    Args:
        source: the folder or archive as downloaded, ``training`` or one that holds it.
        output_dir: folder to write to.
        patients: numbers of the patients. Defaults to those of the training set, 1 to 100; 101 to 150 are the testing
            set.
        spacing: of rows, columns and slices in mm; 0 keeps that of an axis. Defaults to None, which keeps all.
        size: (H, W) of the slices in pixels. Defaults to None, which keeps it.
        clip_percent: how many percent of a volume's voxels are clipped, the brightest. Defaults to 0.
        workers: processes, as for :func:`monai_fewshot.apps.prepare.prepare_dataset`.
        num_folds: folds of the cross-validation, 0 for none.
        skip_broken: whether to leave out scans that have problems instead of stopping.

    Returns:
        The folder.

    Raises:
        ValueError: if there are problems, one line each, or an argument is out of its range.
        FileNotFoundError: if there is no such source.
        FileExistsError: if the folder holds something else.
    """
    preparation = mr_preparation(spacing, size, clip_percent)
    folder = open_source(source, output_dir, "acdc")
    checked = find_acdc_cases(folder, ensure_tuple(patients))
    settings = {"spacing": spacing, "size": size, "clip_percent": clip_percent}
    options: dict[str, Any] = {"workers": workers, "num_folds": num_folds, "skip_broken": skip_broken}
    return prepare_dataset(*checked, load_nifti_scan, preparation, DESCRIPTION, folder, output_dir, settings, **options)


def find_acdc_cases(source: Path, patients: Sequence[int] = PATIENTS) -> tuple[list[Case], list[Problem]]:
    """Find the scans of the data set, and what is wrong with it.

    Args:
        source: folder that holds the patients' folders at any depth.
        patients: numbers of the patients to find.

    Returns:
        The scans, and the problems: missing and doubled folders and files, unreadable ``Info.cfg``, unknown values of
        labels.
    """
    folders = find_numbered(source, r"patient(\d+)")
    if not folders:
        return [], [nothing_found(source, "acdc")]
    cases: list[Case] = []
    problems: list[Problem] = []
    for number in patients:
        name = f"patient{number:03d}"
        found = [folder for folder in folders.get(number, ()) if folder.is_dir()]
        if not found:
            problems.append(Problem(name, None, "has no folder; download it, or leave the patient out (patients)."))
        for folder in found:
            own_cases, own_problems = _frames(folder, name)
            cases += own_cases
            problems += own_problems
    return cases, problems + unknown_values(cases, DESCRIPTION.class_names)


def _frames(folder: Path, patient: str) -> tuple[list[Case], list[Problem]]:
    try:
        frames = _annotated_frames(folder / INFO)
    except ValueError as error:
        return [], [Problem(patient, folder / INFO, str(error))]
    cases, problems = [], []
    for phase, frame in frames.items():
        name = f"{patient}_frame{frame:02d}"
        files = [_nifti(folder / name), _nifti(folder / f"{name}_gt")]
        missing = [file for file in files if not file.is_file()]
        problems += [
            Problem(name, file, f"is missing, which {INFO} names as {PHASES[phase]}; download it again.")
            for file in missing
        ]
        if not missing:
            cases.append(Case(name, (files[0],), (files[1],), patient))
    return cases, problems


def _nifti(path: Path) -> Path:
    compressed, plain = (path.with_name(path.name + suffix) for suffix in (".nii.gz", ".nii"))
    return plain if plain.is_file() and not compressed.is_file() else compressed


def _annotated_frames(path: Path) -> dict[str, int]:
    """Numbers of the frames of end-diastole and end-systole, from lines such as ``ED: 1``."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ValueError("is missing or cannot be read; download it again.") from error
    entries = {key.strip(): value for key, colon, value in (line.partition(":") for line in lines) if colon}
    try:
        frames = {phase: int(entries[phase]) for phase in PHASES}
    except (KeyError, ValueError) as error:
        raise ValueError('does not tell the frames of ED and ES; expected lines such as "ED: 1", "ES: 12".') from error
    if len(set(frames.values())) < len(frames):
        raise ValueError(f"names frame {frames['ED']} as both ED and ES; download it again.")
    return frames
