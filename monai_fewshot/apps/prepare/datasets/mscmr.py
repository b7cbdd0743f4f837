# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.utils import ensure_tuple

from monai_fewshot.apps.prepare.cases.case import Case, Problem
from monai_fewshot.apps.prepare.cases.nifti_scans import load_nifti_scan, unknown_values
from monai_fewshot.apps.prepare.cases.numbered_files import find_pairs
from monai_fewshot.apps.prepare.dataset_description import DatasetDescription
from monai_fewshot.apps.prepare.runner import prepare_dataset
from monai_fewshot.apps.prepare.sources.data_source import open_source
from monai_fewshot.transforms import CARDIAC_SPACING, mr_preparation

__all__ = ["find_mscmr_cases", "prepare_mscmr"]

PATIENTS = tuple(range(1, 36))
VALUES = {200: 1, 500: 2, 600: 3}
DESCRIPTION = DatasetDescription(
    name="MS-CMRSeg 2019 bSSFP cardiac MR",
    modality="MR",
    class_names={1: "LV myocardium", 2: "LV blood pool", 3: "right ventricle"},
    text="35 patients, short-axis slices of the bSSFP sequence, prepared as in the few-shot benchmark Card-MRI: bright "
    "end of the histogram cut, resampled, cropped. Axes are oblique; the last is the short axis.",
    licence="terms of use of the challenge, https://zmiclab.github.io/zxh/0/mscmrseg19",
    reference="X. Zhuang et al., Cardiac segmentation on late gadolinium enhancement MRI, Medical Image Analysis 81, "
    "2022, https://zmiclab.github.io/zxh/0/mscmrseg19",
)


def prepare_mscmr(
    source: PathLike,
    output_dir: PathLike,
    patients: Sequence[int] = PATIENTS,
    spacing: Sequence[float] | None = CARDIAC_SPACING,
    size: Sequence[int] | None = (256, 256),
    clip_percent: float = 0.5,
    workers: int | None = None,
    num_folds: int = 5,
    skip_broken: bool = False,
) -> Path:
    """Prepare the bSSFP scans of the challenge MS-CMRSeg 2019 as the few-shot benchmark Card-MRI has them.

    The download holds ``patient1_C0.nii.gz`` and, in another folder, ``patient1_C0_manual.nii.gz``, whose values 200,
    500 and 600 are left ventricular myocardium, left ventricular blood pool and right ventricle: classes 1, 2 and 3.
    Scans are named ``cmr_01`` and so on, by the number of the patient. Axes are not reoriented.

    Args:
        source: the folder or archive as downloaded, or one that holds images and labels.
        output_dir: folder to write to.
        patients: numbers of the patients. Defaults to the 35 that have labels of this sequence, 1 to 35.
        spacing: of rows, columns and slices in mm.
        size: (H, W) of the slices in pixels.
        clip_percent: how many percent of a volume's voxels are clipped, the brightest.
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
    folder = open_source(source, output_dir, "mscmr")
    checked = find_mscmr_cases(folder, ensure_tuple(patients))
    load = partial(load_nifti_scan, values=VALUES)
    settings = {"spacing": spacing, "size": size, "clip_percent": clip_percent}
    options: dict[str, Any] = {"workers": workers, "num_folds": num_folds, "skip_broken": skip_broken}
    return prepare_dataset(*checked, load, preparation, DESCRIPTION, folder, output_dir, settings, **options)


def find_mscmr_cases(source: Path, patients: Sequence[int] = PATIENTS) -> tuple[list[Case], list[Problem]]:
    """Find the scans of the data set, and what is wrong with it.

    Args:
        source: folder that holds the files at any depth; other sequences beside them are passed over.
        patients: numbers of the patients to find.

    Returns:
        The scans, and the problems: missing and doubled files, unknown values of labels.
    """
    cases, problems = find_pairs(
        source,
        "mscmr",
        patients,
        name="cmr_{:02d}",
        image=(r"patient(\d+)_C0\.nii(?:\.gz)?", "patient{}_C0.nii.gz"),
        label=(r"patient(\d+)_C0_manual\.nii(?:\.gz)?", "patient{}_C0_manual.nii.gz"),
    )
    return cases, problems + unknown_values(cases, VALUES)
