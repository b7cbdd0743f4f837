# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import PathLike
from numpy.typing import NDArray

from monai_fewshot.data.scans.folds import cross_validation_folds
from monai_fewshot.utils import write_atomically

from .anatomy import LABELS
from .volume import check_phantom_arguments, make_phantom_volume

__all__ = ["make_phantom_dataset"]

NAME = "Abdominal phantom"
MOST_VOLUMES = 999


def make_phantom_dataset(
    output_dir: PathLike,
    num_volumes: int = 10,
    size: Sequence[int] = (128, 128, 32),
    modality: str = "mr",
    seed: int = 0,
    num_folds: int = 5,
) -> Path:
    """Write a data set of abdominal phantoms in the layout of the Medical Segmentation Decathlon.

    Scan i is a function of ``seed`` and i alone: more volumes keep those that were there. ``dataset.json`` also holds
    ``folds``, the query scans and the support scan of every part of a cross-validation. It is written last, so that an
    interrupted run leaves no data set that looks complete. Takes about 0.4 s a volume of the default size.

    From a shell: ``python -m monai_fewshot.apps.phantom --output_dir phantom --num_volumes 10``.

    Args:
        output_dir: folder to make; a phantom data set that is there already is replaced.
        num_volumes: number of scans, ``num_folds`` to 999.
        size: voxels by axis, at least (32, 32, 8), see :func:`make_phantom_volume`.
        modality: "mr" or "ct".
        seed: number of the population the patients are drawn from, from 0.
        num_folds: number of folds of the cross-validation, from 2.

    Returns:
        The folder.

    Raises:
        ValueError: if an argument is out of its range, or the folder cannot be written to.
        FileExistsError: if the folder holds another data set.
    """
    voxels = check_phantom_arguments(seed, size, modality)
    if not 1 <= num_volumes <= MOST_VOLUMES:
        raise ValueError(f"num_volumes is {num_volumes}; give 1 to {MOST_VOLUMES}, and no less than num_folds.")
    names = [f"phantom_{index + 1:03d}" for index in range(num_volumes)]
    description = _describe(names, voxels, modality, seed, num_folds)
    folder = Path(output_dir).expanduser()
    _clear(folder / "dataset.json")
    for index, name in enumerate(names):
        image, label, affine = make_phantom_volume(index, seed, voxels, modality)
        _write_nifti(folder / "imagesTr" / f"{name}.nii.gz", image, affine)
        _write_nifti(folder / "labelsTr" / f"{name}.nii.gz", label, affine)
    write_atomically(folder / "dataset.json", json.dumps(description, indent=1) + "\n")
    return folder


def _describe(
    names: Sequence[str], size: tuple[int, int, int], modality: str, seed: int, num_folds: int
) -> dict[str, Any]:
    """Content of ``dataset.json``."""
    voxels = " x ".join(map(str, size))
    return {
        "name": NAME,
        "description": f"Scans of {len(names)} patients who do not exist, {voxels} voxels, axes RAS, seed {seed}.",
        "licence": "Apache-2.0",
        "tensorImageSize": "3D",
        "modality": {"0": modality.upper()},
        "labels": {str(number): label for number, label in LABELS.items()},
        "numTraining": len(names),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names],
        "test": [],
        "folds": [
            {"query": list(fold.query), "support": list(fold.support)}
            for fold in cross_validation_folds(names, num_folds)
        ],
    }


def _clear(path: Path) -> None:
    """Remove the description of an earlier phantom data set, but of no other."""
    if not path.is_file():
        return
    content = path.read_text(encoding="utf-8", errors="replace")
    if f'"name": "{NAME}"' not in content:
        raise FileExistsError(f"{path} describes another data set: name an empty or new folder as output_dir.")
    path.unlink()


def _write_nifti(path: Path, array: NDArray, affine: NDArray[np.float64]) -> None:
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    write_atomically(path, gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))
