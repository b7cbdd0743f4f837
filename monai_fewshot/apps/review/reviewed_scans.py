# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from monai.config import PathLike

from monai_fewshot.apps.command.scan_sources import list_scans
from monai_fewshot.apps.command.segmented_scans import noted_scans
from monai_fewshot.data import Scan, load_class_names
from monai_fewshot.data.layouts.scan_files import is_picture
from monai_fewshot.handlers import OutputFiles
from monai_fewshot.metrics import MEASUREMENT_TABLE, QUALITY_TABLE, worst_qualities

__all__ = ["ReviewedScan", "class_names_of", "list_reviewed_scans"]


@dataclass(frozen=True)
class ReviewedScan:
    """A scan with its masks.

    Attributes:
        name: of the scan.
        masks: files of its mask, one for each format.
        source: where the image lies; None where that is not known.
        preview: picture of scan and mask; None where there is none.
        quality: predicted Dice of its worst class, from 0 to 1; None where it is not known.
        worst_class: the name of that class.
    """

    name: str
    masks: tuple[Path, ...]
    source: Scan | None
    preview: Path | None
    quality: float | None = None
    worst_class: str = ""

    @property
    def is_picture(self) -> bool:
        """Whether it is a 2D picture."""
        return is_picture(self.masks[0])


def list_reviewed_scans(folder: Path, scans: PathLike | None = None) -> list[ReviewedScan]:
    """List the scans of a folder of masks, those of the lowest predicted quality first, then the others by name.

    Args:
        folder: of the masks, as ``monai-fewshot segment`` has written it.
        scans: folder of the scans, where the masks were made by other means. Defaults to None: where the masks' folder
            says that they lie.

    Returns:
        The scans that have masks.

    Raises:
        FileNotFoundError: where the folder does not exist or has no masks, or nothing tells where the scans are.
        ValueError: where a table or list in it is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: give the folder that monai-fewshot segment wrote as --output.")
    files = OutputFiles(folder)
    masks = files.masks()
    if not masks:
        raise FileNotFoundError(
            f"{folder} holds no masks, which are called NAME_seg.nii.gz, NAME_seg.seg.nrrd, NAME_seg.dcm or "
            "NAME_seg.png: give the folder that monai-fewshot segment wrote as --output."
        )
    sources = noted_scans(folder / "model")
    if scans is not None:
        sources |= {scan["name"]: scan for scan in list_scans(scans, [folder])[0]}
    if not sources.keys() & masks.keys():
        where = f"none of the scans in {scans} is called as one of them" if scans else "nothing tells where they lie"
        raise FileNotFoundError(
            f"{folder} holds masks of {len(masks)} scan(s), {', '.join(sorted(masks)[:5])}, but {where}: give the "
            "folder of the scans as --scans."
        )
    worst = worst_qualities(QUALITY_TABLE.read(files.quality_table))
    found = []
    for name in sorted(masks):
        quality, worst_class = (worst[name].predicted_dice, worst[name].name) if name in worst else (None, "")
        preview = files.preview(name)
        shown = preview if preview.is_file() else None
        found.append(ReviewedScan(name, tuple(masks[name]), sources.get(name), shown, quality, worst_class))
    return sorted(found, key=lambda scan: math.inf if scan.quality is None else scan.quality)


def class_names_of(folder: Path) -> dict[int, str]:
    """Tell the classes of the masks in a folder.

    Args:
        folder: of the masks.

    Returns:
        Names by number; empty where they are not known.
    """
    names = load_class_names(folder / "model" / "scans")
    return names or {row.label: row.name for row in MEASUREMENT_TABLE.read(folder / "measurements.csv")}
