# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_fewshot.data import Scan, fingerprint_scans
from monai_fewshot.utils import write_atomically

from .problems import ScanProblem

__all__ = ["note_scans", "problems_of_changed_scans"]

FILE = "segmented.json"


def note_scans(folder: Path, scans: Sequence[Scan]) -> None:
    """Note the content of scans that are about to be segmented, in ``segmented.json``.

    Args:
        folder: of the file.
        scans: the scans.
    """
    noted = {**_noted(folder), **{scan["name"]: fingerprint_scans([scan]) for scan in scans}}
    write_atomically(folder / FILE, json.dumps(noted, indent=1))


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
