# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import nibabel
from monai.utils import ensure_tuple
from tqdm import tqdm

from monai_fewshot.data.scans.check_scan import shape_problems
from monai_fewshot.data.scans.check_scans import check_nifti_header
from monai_fewshot.data.scans.scan_folder import Scan

from .nifti_files import check_spacing, is_nifti

__all__ = ["check_headers"]

THREADS = 4
VOXELS_PER_BYTE = 2
"""Of files whose headers are not read, a guess: compressed integers of two bytes."""


def check_headers(scans: Sequence[Scan], num_channels: int | None = 1) -> list[int]:
    """Check what can be told of scans without reading their voxels, and report every problem at once.

    Files must be there. Headers of NIfTI files are read, and must tell where voxels lie and hold one volume of gray
    values. Voxels, and files of other formats, are checked when they are read.

    Args:
        scans: as :func:`monai_fewshot.data.load_scans` returns them.
        num_channels: that images must have; None for any.

    Returns:
        The number of voxels of each scan; a guess by the size of its files, where they are no NIfTI.

    Raises:
        ValueError: where there are problems: one line each, naming the file.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        results = pool.map(lambda scan: _check(scan, num_channels), scans)
        found = list(tqdm(results, "checking headers", total=len(scans), disable=None))
    problems = [problem for _, problems in found for problem in problems]
    if problems:
        raise ValueError(
            f"{len(problems)} problem(s) in {sum(bool(each) for _, each in found)} of {len(scans)} scans:\n"
            + "\n".join(problems)
        )
    return [voxels for voxels, _ in found]


def _check(scan: Scan, num_channels: int | None) -> tuple[int, list[str]]:
    image = scan["image"]
    if is_nifti(image) and Path(image).is_file():
        try:
            return _check_nifti(Path(image), num_channels)
        except ValueError as error:
            return 0, [f"{image}: {error}"]
    files = [Path(file) for file in ensure_tuple(image)]
    if isinstance(image, str) and not files[0].exists():
        return 0, [f"{image}: is missing; correct its path in the list of scans, or restore the file."]
    return sum(VOXELS_PER_BYTE * file.stat().st_size for file in files if file.is_file()), []


def _check_nifti(path: Path, num_channels: int | None) -> tuple[int, list[str]]:
    check_nifti_header(path)
    image = cast(nibabel.Nifti1Image, nibabel.load(path))
    check_spacing(image, path)
    shape = tuple(image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    channels = (shape[3], *shape[:3]) if len(shape) == 4 else (1, *shape)
    problems = shape_problems(channels, num_channels) if len(shape) in (3, 4) else []
    return math.prod(shape), [f"{path}: {problem}" for problem in problems]
