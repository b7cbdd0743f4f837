# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from monai_fewshot.utils import write_atomically

from .score_summary import ScanScore, summarize

__all__ = ["read_scores", "write_scores"]

UNITS = {"dice": "fraction 0 to 1", "iou": "fraction 0 to 1", "hd95": "hd95_unit of the row", "null": "undefined"}
COLUMNS = {field.name: {"int": int, "float": float, "str": str}[str(field.type)] for field in fields(ScanScore)}


def write_scores(
    scores: Iterable[ScanScore],
    folder: str | os.PathLike[str],
    provenance: Mapping[str, Any],
    reductions: Mapping[str, str] | None = None,
) -> tuple[Path, Path]:
    """Write ``results.csv`` and ``results.json``.

    The CSV file has one row a scan (or episode), class and protocol, and undefined values as ``nan``. The JSON file has
    the same rows under ``scores``, what :func:`summarize` makes of them under ``summary``, and the ``provenance``;
    undefined values are ``null``. Dice and IoU are fractions 0 to 1 in both; reports print percent.

    Args:
        scores: the rows.
        folder: where to write; made where needed.
        provenance: what made the scores: config, seed, versions, data fingerprint. Anything JSON lacks is written as
            its text.
        reductions: over scans, by protocol, for the summary, see :func:`summarize`.

    Returns:
        Paths of the two files.

    Raises:
        ValueError: where the folder cannot be written to, or a scan is scored twice.
    """
    scores = list(scores)
    summary = summarize(scores, reductions)
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, [*COLUMNS, "iou"])
    writer.writeheader()
    rows = [{**asdict(score), "iou": score.iou} for score in scores]
    writer.writerows(rows)
    content = {
        "units": UNITS,
        "provenance": provenance,
        "summary": [asdict(row) for row in summary],
        "scores": rows,
    }
    text = json.dumps(_for_json(content), indent=1, ensure_ascii=False, allow_nan=False)
    folder = Path(folder)
    return write_atomically(folder / "results.csv", table.getvalue()), write_atomically(folder / "results.json", text)


def read_scores(path: str | os.PathLike[str]) -> list[ScanScore]:
    """Read what :func:`write_scores` wrote, for example to put folds together that were evaluated one by one.

    Args:
        path: a ``results.csv`` or ``results.json``.

    Returns:
        The rows, undefined values as NaN.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it does not hold scores.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There are no scores at {path}. Name an evaluation's results.csv or results.json.")
    text = path.read_text(encoding="utf-8")
    try:
        rows = json.loads(text)["scores"] if path.suffix == ".json" else csv.DictReader(io.StringIO(text, newline=""))
        return [ScanScore(**{name: kind(_or_nan(row[name])) for name, kind in COLUMNS.items()}) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a results file as write_scores makes it ({type(error).__name__}: {error}). "
            "Evaluate again, or name another file."
        ) from error


def _or_nan(value: Any) -> Any:
    return math.nan if value is None else value


def _for_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _for_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_for_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
