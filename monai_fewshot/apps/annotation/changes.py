# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.utils import convert_to_numpy

from monai_fewshot.data import LoadScand, Scan
from monai_fewshot.metrics import RowTable
from monai_fewshot.visualize import ScanChange, change_figure, figure_to_png, write_change_page

__all__ = ["CHANGE_TABLE", "MaskChange", "compare_masks", "mask_changes", "write_changes"]

PICTURE_DPI = 110


@dataclass(frozen=True)
class MaskChange:
    """How far two masks of a scan agree on a class.

    Attributes:
        scan: its name.
        label: class number.
        name: of the class.
        dice_between: Dice of the mask before and the one after, from 0 to 1; 1 where neither shows the class.
    """

    scan: str
    label: int
    name: str
    dice_between: float


CHANGE_TABLE = RowTable(MaskChange, "changes of masks")
"""Reads and writes ``changes.csv``."""


def mask_changes(scan: str, before: np.ndarray, after: np.ndarray, class_names: Mapping[int, str]) -> list[MaskChange]:
    """Compare two masks of a scan, class by class.

    Args:
        scan: its name.
        before: class numbers, of any shape.
        after: likewise.
        class_names: names by number.

    Example:
        >>> mask_changes("a", np.array([1, 1, 0]), np.array([1, 0, 0]), {1: "liver"})[0].dice_between
        0.6666666666666666
    """
    rows = []
    for number, name in class_names.items():
        one, other = before == number, after == number
        voxels = int(one.sum() + other.sum())
        dice = 2 * int((one & other).sum()) / voxels if voxels else 1.0
        rows.append(MaskChange(scan, number, name, dice))
    return rows


def compare_masks(
    scan: Scan, before: Path, after: Path, class_names: Mapping[int, str]
) -> tuple[list[MaskChange], ScanChange]:
    """Compare two masks of a scan, and draw them side by side where they differ most.

    Args:
        scan: with ``name`` and ``image``.
        before: mask file.
        after: likewise.
        class_names: names by number.

    Returns:
        A row for each class, and what the page shows.
    """
    load = LoadScand()
    loaded = load({"image": scan["image"], "label": str(before)})
    image: MetaTensor = loaded["image"]
    old = convert_to_numpy(loaded["label"])[0].astype(np.int64)
    new = convert_to_numpy(load({"image": scan["image"], "label": str(after)})["label"])[0].astype(np.int64)
    rows = mask_changes(scan["name"], old, new, class_names)
    gray = convert_to_numpy(image).mean(0).reshape(old.shape)
    figure = change_figure(gray, old, new, class_names, convert_to_numpy(image.affine))
    dice = {row.label: row.dice_between for row in rows}
    return rows, ScanChange(scan["name"], dice, figure_to_png(figure, PICTURE_DPI))


def write_changes(
    folder: Path,
    comparisons: Sequence[tuple[list[MaskChange], ScanChange]],
    class_names: Mapping[int, str],
    corrected: Sequence[str],
    provenance: Mapping[str, Any],
) -> tuple[Path, Path]:
    """Write ``changes.csv`` and ``changes.html``.

    Args:
        folder: where to.
        comparisons: of each scan, as :func:`compare_masks` makes them.
        class_names: names by number.
        corrected: names of the scans whose masks a person has corrected.
        provenance: what made the masks.

    Returns:
        Table and page.
    """
    table = CHANGE_TABLE.write(folder / "changes.csv", [row for rows, _ in comparisons for row in rows])
    shown = [change for _, change in comparisons]
    return table, write_change_page(folder / "changes.html", shown, class_names, corrected, table.name, provenance)
