# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.utils import ensure_tuple

from monai_fewshot.apps.prepare.cases.case import Case, Problem
from monai_fewshot.apps.prepare.cases.numbered_files import by_number, nothing_found, walk
from monai_fewshot.apps.prepare.cases.picture_stacks import load_picture_stack, stack_problems
from monai_fewshot.apps.prepare.dataset_description import DatasetDescription
from monai_fewshot.apps.prepare.runner import prepare_dataset
from monai_fewshot.apps.prepare.sources.data_source import open_source
from monai_fewshot.data.dicom.header import is_dicom
from monai_fewshot.data.scans.scan_reading import share_of_cores
from monai_fewshot.transforms import ct_preparation, mr_preparation

__all__ = ["CHAOS_PARTS", "ChaosPart", "find_chaos_cases", "prepare_chaos"]

MR_PATIENTS = (1, 2, 3, 5, 8, 10, 13, 15, 19, 20, 21, 22, 31, 32, 33, 34, 36, 37, 38, 39)
CT_PATIENTS = (1, 2, 5, 6, 8, 10, 14, 16, 18, 19, *range(21, 31))
MR_CLASSES = {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}
MR_RANGES = {1: range(56, 71), 2: range(111, 136), 3: range(176, 201), 4: range(241, 256)}
MR_VALUES = {value: number for number, values in MR_RANGES.items() for value in values}
"""Class by gray value; an organ is drawn as 63, 126, 189 or 252, and the challenge counts the values around."""

CT_VALUES = {1: 1, 255: 1}
LICENCE = "terms of use of the challenge, https://doi.org/10.5281/zenodo.3431873"
REFERENCE = "A. E. Kavur et al., CHAOS Challenge, Medical Image Analysis 69, 2021, https://chaos.grand-challenge.org"


@dataclass(frozen=True)
class ChaosPart:
    """One kind of scans of the challenge.

    Args:
        name: of the prepared data set.
        modality: "MR" or "CT".
        images: folder of the DICOM files in that of a patient.
        pictures: folder of the PNG labels likewise.
        patients: numbers of the annotated patients.
        class_names: name by number.
        values: class by gray value of the labels.
    """

    name: str
    modality: str
    images: str
    pictures: str
    patients: tuple[int, ...]
    class_names: Mapping[int, str]
    values: Mapping[int, int]


_MR = (MR_PATIENTS, MR_CLASSES, MR_VALUES)
CHAOS_PARTS = {
    "t2spir": ChaosPart("CHAOS T2-SPIR abdominal MR", "MR", "T2SPIR/DICOM_anon", "T2SPIR/Ground", *_MR),
    "t1_in_phase": ChaosPart("CHAOS T1 in-phase MR", "MR", "T1DUAL/DICOM_anon/InPhase", "T1DUAL/Ground", *_MR),
    "t1_out_phase": ChaosPart("CHAOS T1 out-of-phase MR", "MR", "T1DUAL/DICOM_anon/OutPhase", "T1DUAL/Ground", *_MR),
    "ct": ChaosPart("CHAOS abdominal CT", "CT", "DICOM_anon", "Ground", CT_PATIENTS, {1: "liver"}, CT_VALUES),
}


def prepare_chaos(
    source: PathLike,
    output_dir: PathLike,
    part: str = "t2spir",
    patients: Sequence[int] | None = None,
    spacing: Sequence[float] | None = (1.25, 1.25, 7.7),
    clip_percent: float = 0.5,
    window: Sequence[float] = (-125, 275),
    values: Sequence[float] = (0, 255),
    border: int = 32,
    size: Sequence[int] | None = (256, 256),
    orientation: str | None = "LAS",
    workers: int | None = None,
    num_folds: int = 5,
    skip_broken: bool = False,
) -> Path:
    """Prepare a part of the challenge CHAOS; T2-SPIR as the few-shot benchmark Abd-MRI has it.

    The download ``CHAOS_Train_Sets.zip`` holds DICOM files and PNG labels, for MR in ``Train_Sets/MR/1/T2SPIR`` and
    ``T1DUAL``, for CT in ``Train_Sets/CT/1``. Labels of MR are liver, right kidney, left kidney and spleen, classes 1
    to 4, that of CT is the liver. Scans are named ``chaos_01`` and so on, by the number of the patient. Numbers in CT
    and MR stand for different patients.

    The files of a label follow the names of the DICOM files, not the slices' places in space.

    Args:
        source: the folder or archive as downloaded.
        output_dir: folder to write to.
        part: "t2spir", "t1_in_phase", "t1_out_phase" or "ct".
        patients: numbers of the patients. Defaults to None, the 20 of the part that have labels.
        spacing: of rows, columns and slices in mm, for MR.
        clip_percent: how many percent of a volume's voxels are clipped, the brightest, for MR.
        window: lowest and highest Hounsfield unit, for CT.
        values: what these become, for CT.
        border: pixels to cut off at each side of a slice, for CT.
        size: (H, W) of the slices in pixels.
        orientation: how the axes lie; None leaves them.
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
    chosen = _part(part)
    if chosen.modality == "CT":
        numbers = {"window": window, "values": values, "border": border}
        preparation = ct_preparation(window, values, border, size, orientation)
    else:
        numbers = {"spacing": spacing, "clip_percent": clip_percent}
        preparation = mr_preparation(spacing, size, clip_percent, orientation)
    folder = open_source(source, output_dir, "chaos")
    checked = find_chaos_cases(folder, part, None if patients is None else ensure_tuple(patients))
    load = partial(load_picture_stack, values=chosen.values)
    settings = {"part": part, **numbers, "size": size, "orientation": orientation}
    options: dict[str, Any] = {"workers": workers, "num_folds": num_folds, "skip_broken": skip_broken}
    return prepare_dataset(*checked, load, preparation, _description(chosen), folder, output_dir, settings, **options)


def find_chaos_cases(
    source: Path, part: str = "t2spir", patients: Sequence[int] | None = None
) -> tuple[list[Case], list[Problem]]:
    """Find the scans of a part of the data set, and what is wrong with it, by headers and labels.

    Args:
        source: folder that holds the patients' folders at any depth.
        part: "t2spir", "t1_in_phase", "t1_out_phase" or "ct".
        patients: numbers of the patients to find. Defaults to None, those of the part that have labels.

    Returns:
        The scans, and the problems: missing and doubled folders and files, and what
        :func:`monai_fewshot.apps.prepare.cases.picture_stacks.stack_problems` finds.

    Raises:
        ValueError: for another part.
    """
    chosen = _part(part)
    folders = _patient_folders(source, chosen.images.split("/")[0])
    if not folders:
        return [], [nothing_found(source, "chaos")]
    found: list[tuple[str, Path]] = []
    problems: list[Problem] = []
    for number in chosen.patients if patients is None else patients:
        name = f"chaos_{number:02d}"
        if number not in folders:
            text = f"has no folder {number}/{chosen.images}; download it, or leave the patient out (patients)."
            problems.append(Problem(name, None, text))
        found += [(name, folder) for folder in folders.get(number, ())]
    with ThreadPoolExecutor(share_of_cores()) as pool:
        checked = list(pool.map(lambda item: _find_case(item[0], item[1], chosen), found))
    cases = [case for case, _ in checked if case is not None]
    return cases, problems + [problem for _, own in checked for problem in own]


def _part(part: str) -> ChaosPart:
    if part not in CHAOS_PARTS:
        raise ValueError(f'part is "{part}"; give one of {", ".join(CHAOS_PARTS)}.')
    return CHAOS_PARTS[part]


def _patient_folders(source: Path, inner: str) -> Mapping[int, list[Path]]:
    """Folders whose name is a number and that hold the folder ``inner``, by the number."""
    folders: dict[int, list[Path]] = defaultdict(list)
    for path in walk(source):
        if path.name == inner and path.parent.name.isdigit() and path.is_dir():
            folders[int(path.parent.name)].append(path.parent)
    return folders


def _find_case(name: str, folder: Path, part: ChaosPart) -> tuple[Case | None, list[Problem]]:
    images, pictures = folder / part.images, folder / part.pictures
    files = sorted((file for file in _visible(images) if is_dicom(file)), key=by_number)
    labels = sorted((file for file in _visible(pictures) if file.suffix.lower() == ".png"), key=by_number)
    missing = [(images, files, "DICOM files"), (pictures, labels, "PNG files")]
    problems = [
        Problem(name, path, f"holds no {kind}; download it again.") for path, found, kind in missing if not found
    ]
    if problems:
        return None, problems
    case = Case(name, tuple(files), tuple(labels))
    return case, stack_problems(case, part.values)


def _visible(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if not file.name.startswith(".")] if folder.is_dir() else []


def _description(part: ChaosPart) -> DatasetDescription:
    prepared = (
        "window, border cut off, slices resized" if part.modality == "CT" else "bright end cut, resampled, cropped"
    )
    text = f"Patients of the CHAOS challenge's training set; {prepared}, as in the few-shot benchmarks."
    return DatasetDescription(part.name, part.modality, part.class_names, text, LICENCE, REFERENCE)
