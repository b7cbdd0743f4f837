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
from monai_fewshot.apps.prepare.cases.numbered_files import find_pairs
from monai_fewshot.apps.prepare.dataset_description import DatasetDescription
from monai_fewshot.apps.prepare.runner import prepare_dataset
from monai_fewshot.apps.prepare.sources.data_source import open_source
from monai_fewshot.transforms import ct_preparation

__all__ = ["find_sabs_cases", "prepare_sabs"]

PATIENTS = (*range(1, 11), *range(21, 41))
ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic vein",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
DESCRIPTION = DatasetDescription(
    name="SABS abdominal CT",
    modality="CT",
    class_names=dict(enumerate(ORGANS, start=1)),
    text="30 patients of the MICCAI 2015 challenge Multi-Atlas Labeling Beyond the Cranial Vault, prepared as in the "
    "few-shot benchmark Abd-CT: window, border cut off, slices resized.",
    licence="terms of use of the challenge, https://www.synapse.org/Synapse:syn3193805",
    reference="B. Landman et al., https://www.synapse.org/Synapse:syn3193805/wiki/217789",
)


def prepare_sabs(
    source: PathLike,
    output_dir: PathLike,
    patients: Sequence[int] = PATIENTS,
    window: Sequence[float] = (-125, 275),
    values: Sequence[float] = (0, 255),
    border: int = 32,
    size: Sequence[int] | None = (256, 256),
    orientation: str | None = "LAS",
    workers: int | None = None,
    num_folds: int = 5,
    skip_broken: bool = False,
) -> Path:
    """Prepare the abdominal CT scans of BTCV / Synapse ("SABS") as the few-shot benchmark Abd-CT has them.

    The download holds ``img/img0001.nii.gz`` and ``label/label0001.nii.gz``, with labels for 13 organs. Scans are named
    ``sabs_01`` and so on, by the number of the patient.

    Deviation: beside those of :func:`monai_fewshot.transforms.ct_preparation`, all scans are flipped to lie one way.

    Args:
        source: the folder or archive as downloaded, ``RawData`` or one that holds it.
        output_dir: folder to write to.
        patients: numbers of the patients. Defaults to the 30 that have labels, 1 to 10 and 21 to 40.
        window: lowest and highest Hounsfield unit.
        values: what these become.
        border: pixels to cut off at each side of a slice.
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
    numbers = {"window": window, "values": values, "border": border, "size": size, "orientation": orientation}
    preparation = ct_preparation(window, values, border, size, orientation)
    folder = open_source(source, output_dir, "sabs")
    checked = find_sabs_cases(folder, ensure_tuple(patients))
    options: dict[str, Any] = {"workers": workers, "num_folds": num_folds, "skip_broken": skip_broken}
    return prepare_dataset(*checked, load_nifti_scan, preparation, DESCRIPTION, folder, output_dir, numbers, **options)


def find_sabs_cases(source: Path, patients: Sequence[int] = PATIENTS) -> tuple[list[Case], list[Problem]]:
    """Find the scans of the data set, and what is wrong with it.

    Args:
        source: folder that holds the files at any depth.
        patients: numbers of the patients to find.

    Returns:
        The scans, and the problems: missing and doubled files, unknown values of labels.
    """
    cases, problems = find_pairs(
        source,
        "sabs",
        patients,
        name="sabs_{:02d}",
        image=(r"img(\d+)\.nii(?:\.gz)?", "img{:04d}.nii.gz"),
        label=(r"label(\d+)\.nii(?:\.gz)?", "label{:04d}.nii.gz"),
    )
    return cases, problems + unknown_values(cases, DESCRIPTION.class_names)
