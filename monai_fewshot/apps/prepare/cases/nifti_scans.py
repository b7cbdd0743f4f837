# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from monai.transforms import MapLabelValue

from monai_fewshot.data.files.file_damage import check_checksums
from monai_fewshot.data.files.volume_loader import VolumeLoader
from monai_fewshot.data.scans.load_scan import load_image
from monai_fewshot.data.scans.scan_reading import share_of_cores
from monai_fewshot.utils import EpisodeKeys, list_values

from .case import Case, Problem

__all__ = ["distinct_values", "load_nifti_scan", "unknown_value_problem", "unknown_values"]

MOST_COUNTED = 1 << 16


def load_nifti_scan(case: Case, values: Mapping[int, int] | None = None) -> dict[str, Any]:
    """Read the image and label of a scan, on their own grid.

    Args:
        case: a scan of one NIfTI file each.
        values: class by value of the label, where they differ.

    Returns:
        ``image`` and, where there is one, ``label``, each (1, H, W, D).
    """
    load = VolumeLoader()
    scan = {str(EpisodeKeys.IMAGE): load_image(case.image[0], load)}
    if case.label:
        label = load_image(case.label[0], load)
        if values:
            label = MapLabelValue(list(values), list(values.values()))(label)
        scan[str(EpisodeKeys.LABEL)] = label
    return scan


def unknown_values(cases: Sequence[Case], allowed: Collection[int]) -> list[Problem]:
    """Find labels that hold other values than they should, by reading them whole, in parallel.

    Args:
        cases: scans with a NIfTI file as label.
        allowed: values beside 0.

    Returns:
        A problem for each such label; files that cannot be read are passed over.
    """
    labeled = [case for case in cases if case.label]
    with ThreadPoolExecutor(share_of_cores()) as pool:
        values = pool.map(lambda case: distinct_values(case.label[0]), labeled)
        found = [(case, sorted(set(own) - {0, *allowed})) for case, own in zip(labeled, values, strict=True)]
    return [unknown_value_problem(case.name, case.label[0], odd, allowed) for case, odd in found if odd]


def unknown_value_problem(name: str, path: Path, odd: Sequence[float], allowed: Collection[int]) -> Problem:
    """Say which values of a label are not known.

    Args:
        name: of the scan.
        path: of the label.
        odd: the unknown values.
        allowed: the known ones beside 0.
    """
    text = f"holds the value(s) {list_values(odd)}; expected 0 and {', '.join(map(str, sorted(allowed)))}."
    return Problem(name, path, f"{text} Download it again, or correct it.")


def distinct_values(path: Path) -> set[float]:
    """Values of the voxels of a NIfTI file; none for one that cannot be read."""
    try:
        check_checksums(path)
        voxels = np.asanyarray(cast(nib.Nifti1Image, nib.load(path)).dataobj)
    except Exception:  # whatever a damaged file raises, the check of the files names it
        return set()
    if not voxels.size or not np.issubdtype(voxels.dtype, np.integer):
        return set(np.unique(voxels).tolist())
    lowest, highest = int(voxels.min()), int(voxels.max())
    if highest - lowest >= MOST_COUNTED:
        return set(np.unique(voxels).tolist())
    present = np.zeros(highest - lowest + 1, bool)
    present[np.subtract(voxels, lowest, dtype=np.int64) if lowest else voxels] = True
    return set((np.flatnonzero(present) + lowest).tolist())
