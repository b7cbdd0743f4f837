# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Print the mean Dice of masks by class: ``python scripts/compare_masks.py DATASET MASKS [NAME_LEFT_OUT ...]``.

``DATASET`` is an annotated data set in the layout of the Medical Segmentation Decathlon, ``MASKS`` a folder of
``NAME_seg.nii.gz``. Scans that were the example are left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel
import numpy as np

from monai_fewshot.data import load_class_names, load_scans


def main(dataset: str, masks: str, *left_out: str) -> None:
    """Print the table."""
    names = load_class_names(dataset)
    scans = [scan for scan in load_scans(dataset, require_labels=True) if scan["name"] not in left_out]
    table = []
    for scan in scans:
        truth = np.asarray(nibabel.load(scan["label"]).dataobj)
        found = np.asarray(nibabel.load(Path(masks) / f"{scan['name']}_seg.nii.gz").dataobj)
        pairs = [(truth == number, found == number) for number in names]
        table.append([200 * (one & other).sum() / max(1, one.sum() + other.sum()) for one, other in pairs])
    means = np.mean(table, axis=0)
    for name, dice in zip([*names.values(), "mean"], [*means, means.mean()], strict=True):
        print(f"{name:16} Dice {dice:5.1f} %")
    print(f"{'worst scan':16} Dice {np.mean(table, axis=1).min():5.1f} %")


if __name__ == "__main__":
    main(*sys.argv[1:])
