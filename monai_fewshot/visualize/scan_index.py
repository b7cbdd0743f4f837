# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from monai_fewshot.metrics import Measurement, PredictedQuality, worst_qualities
from monai_fewshot.utils import write_atomically

from .page import embed_picture, render_page
from .scan_previews import class_colors

__all__ = ["write_scan_index"]

EMBEDDED = 100
"""Pictures that a page holds itself; of more scans, those after it are shown from their files beside the page."""


def write_scan_index(
    path: str | os.PathLike[str],
    files: Mapping[str, Sequence[Path]],
    previews: Mapping[str, Path],
    measurements: Iterable[Measurement] = (),
    table: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
    title: str = "Segmented scans",
    qualities: Sequence[PredictedQuality] = (),
    flag_below: float | None = None,
) -> Path:
    """Write a page of segmented scans: pictures, measurements, predicted quality, links to their files.

    The page is one HTML file with its pictures in it, up to 100 of them. Scans are sorted by name; where their quality
    is predicted, by that of their worst class, the worst scan first.

    Args:
        path: the page; what it links to is named relative to its folder.
        files: masks by name of the scan.
        previews: PNG files by name of the scan; scans need not have one.
        measurements: rows of any scans.
        table: file of the measurements.
        provenance: what made the masks.
        title: of the page.
        qualities: rows of any scans.
        flag_below: predicted Dice below which a mask is marked.

    Returns:
        The path.
    """
    path = Path(path)
    rows = list(measurements)
    classes = {row.label: row.name for row in sorted(rows, key=lambda row: row.label)}
    by_scan: dict[str, dict[int, Measurement]] = {}
    for row in sorted(rows, key=lambda row: row.label):
        by_scan.setdefault(row.scan, {})[row.label] = row
    judged: dict[str, dict[int, PredictedQuality]] = {}
    worst = {name: row.predicted_dice for name, row in worst_qualities(qualities).items()}
    for quality in sorted(qualities, key=lambda row: row.label):
        judged.setdefault(quality.scan, {})[quality.label] = quality
    judged_classes = {row.label: row.name for rows in judged.values() for row in rows.values()}
    names = sorted({*files, *previews, *by_scan}, key=lambda name: (worst.get(name, -1.0), name))
    embedded = [name for name in names if name in previews][:EMBEDDED]
    html = render_page(
        "scan_index.html",
        provenance or {},
        title=title,
        table=_relative(table, path) if table else None,
        classes=classes,
        colors=class_colors(classes or judged_classes),
        judged_classes=judged_classes,
        flag_below=flag_below or 0.0,
        num_flagged=sum(worst.get(name, 1.0) < (flag_below or 0.0) for name in names),
        entries=[
            {
                "name": name,
                "place": place,
                "picture": _picture(previews.get(name), path, name in embedded),
                "files": [_relative(file, path) for file in files.get(name, ())],
                "rows": by_scan.get(name, {}),
                "qualities": judged.get(name, {}),
            }
            for place, name in enumerate(names, 1)
        ],
    )
    return write_atomically(path, html)


def _picture(preview: Path | None, page: Path, embedded: bool) -> str | None:
    if preview is None:
        return None
    return embed_picture(preview.read_bytes()) if embedded else quote(_relative(preview, page))


def _relative(file: Path, page: Path) -> str:
    return Path(os.path.relpath(file, page.parent)).as_posix()
