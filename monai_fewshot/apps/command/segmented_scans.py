# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_fewshot.data import Scan, fingerprint_scans, load_scans
from monai_fewshot.utils import write_atomically

from .problems import ScanProblem
from .scan_sources import write_scan_list

__all__ = ["note_scans", "noted_scans", "problems_of_changed_scans"]

FILE = "segmented.json"
LIST = "segmented_scans"
LISTS = ("training_scans", "scans", LIST)
"""Folders of lists of scans, the newest last; folders of older versions have no list of all segmented scans."""


def note_scans(folder: Path, scans: Sequence[Scan]) -> None:
    """Note scans that are about to be segmented: their content in ``segmented.json``, and where they lie.

    Args:
        folder: of the file, and of the list that :func:`noted_scans` reads.
        scans: the scans.
    """
    noted = {**_noted(folder), **{scan["name"]: fingerprint_scans([scan]) for scan in scans}}
    write_atomically(folder / FILE, json.dumps(noted, indent=1))
    known = {**noted_scans(folder), **{scan["name"]: scan for scan in scans}}
    write_scan_list(folder / LIST, list(known.values()), {})


def noted_scans(folder: Path) -> dict[str, Scan]:
    """Tell where the scans lie that were segmented, in all runs.

    Args:
        folder: where :func:`note_scans` has noted them.

    Returns:
        Scans by name; none where nothing is noted.

    Raises:
        ValueError: where a list is damaged; the text names it.
    """
    lists = [folder / name for name in LISTS if (folder / name / "dataset.json").is_file()]
    return {scan["name"]: scan for each in lists for scan in load_scans(each)}


def problems_of_changed_scans(
    folder: Path, scans: Sequence[Scan], masks: Mapping[str, Sequence[Path]]
) -> list[ScanProblem]:
    """Find scans whose masks are of other scans of the same name.

    Args:
        folder: where :func:`note_scans` has noted what the masks are of.
        scans: those that have masks.
        masks: files by name of the scan.

    Returns:
        A problem for each.
    """
    noted = _noted(folder)
    return [
        ScanProblem(
            scan["name"],
            scan["image"] if isinstance(scan["image"], str) else scan["name"],
            "has changed since it was segmented, or its mask is of another scan of the same name",
            f"Name another --output, or remove {', '.join(map(str, masks[scan['name']]))} to segment it anew.",
        )
        for scan in scans
        if scan["name"] in noted and noted[scan["name"]] != fingerprint_scans([scan])
    ]


def _noted(folder: Path) -> dict[str, str]:
    path = folder / FILE
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it, or name another --output.") from error
