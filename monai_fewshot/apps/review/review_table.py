# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from monai_fewshot.utils import locked_file, write_atomically

__all__ = ["VERDICTS", "Review", "add_review", "read_reviews"]

COLUMNS = ("scan", "verdict", "note", "time")
VERDICTS = ("accepted", "rejected", "")
REMEDY = "Correct that line, or move the file away to begin anew; it is left as it is until then."


@dataclass(frozen=True)
class Review:
    """What somebody thinks of a scan's mask.

    Attributes:
        scan: its name.
        verdict: ``"accepted"``, ``"rejected"``, or empty where it is not decided.
        note: any text.
        time: when it was noted, in ISO 8601; empty where it is not known.
    """

    scan: str
    verdict: str = ""
    note: str = ""
    time: str = ""


def read_reviews(path: Path) -> dict[str, Review]:
    """Read ``review.csv``.

    Args:
        path: the file.

    Returns:
        Reviews by name of the scan, those of unknown scans too; none where there is no such file.

    Raises:
        ValueError: where it holds something else; the text names the line and tells what to do.

    Example:
        >>> read_reviews(Path("missing.csv"))
        {}
    """
    _, rows = _read(path)
    return {row["scan"]: Review(**{name: row[name] for name in COLUMNS}) for row in rows}


def add_review(path: Path, review: Review) -> Review:
    """Put a review into ``review.csv`` at once, in the place of the scan's former one; processes may do so together.

    Other rows, and columns that somebody has added, stay as they are.

    Args:
        path: the file; a new one where there is none.
        review: the review; its time is set to now.

    Returns:
        The review with its time.

    Raises:
        ValueError: where the file holds something else, which is then not overwritten, or the verdict is unknown.
    """
    if review.verdict not in VERDICTS:
        raise ValueError(f"The verdict is {review.verdict!r}: give 'accepted', 'rejected' or nothing.")
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    review = Review(review.scan, review.verdict, review.note, now)
    with locked_file(path):
        columns, rows = _read(path)
        row = next((row for row in rows if row["scan"] == review.scan), None)
        if row is None:
            row = dict.fromkeys(columns, "")
            rows.append(row)
        row.update(asdict(review))
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(path, table.getvalue())
    return review


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of the file, which may have more columns than ours."""
    if not path.is_file():
        return list(COLUMNS), []
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = list(_lines(text))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} cannot be read as a table ({error}): save it as CSV in UTF-8, or move it away to begin anew; it "
            "is left as it is until then."
        ) from error
    if not lines:
        return list(COLUMNS), []
    (number, columns), *rest = lines
    if lacking := [name for name in COLUMNS if name not in columns]:
        raise ValueError(
            f"{path}, line {number}: lacks the column(s) {', '.join(lacking)}; it has {', '.join(columns)[:200]!r}. "
            f"Expected the heading {','.join(COLUMNS)}, separated by commas. {REMEDY}"
        )
    if doubled := sorted({name for name in columns if columns.count(name) > 1}):
        raise ValueError(f"{path}, line {number}: has the column {doubled[0]!r} twice. {REMEDY}")
    seen: dict[str, int] = {}
    return columns, [_row(path, number, columns, fields, seen) for number, fields in rest]


def _row(
    path: Path, number: int, columns: Sequence[str], fields: Sequence[str], seen: dict[str, int]
) -> dict[str, str]:
    if len(fields) != len(columns):
        raise ValueError(
            f"{path}, line {number}: has {len(fields)} field(s), the heading has {len(columns)}; put a note with "
            f'commas into "double quotes". {REMEDY}'
        )
    row = dict(zip(columns, fields, strict=True))
    row["verdict"] = row["verdict"].strip().lower()
    if row["verdict"] not in VERDICTS:
        raise ValueError(
            f"{path}, line {number}: the verdict is {row['verdict']!r}; expected 'accepted', 'rejected' or nothing. "
            f"{REMEDY}"
        )
    if not row["scan"]:
        raise ValueError(f"{path}, line {number}: names no scan. {REMEDY}")
    if row["scan"] in seen:
        raise ValueError(
            f"{path}, line {number}: the scan {row['scan']!r} is in line {seen[row['scan']]} too. {REMEDY}"
        )
    seen[row["scan"]] = number
    return row


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Fields of each row with the number of its first line, from 1; empty lines are passed over."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    begin = 1
    for fields in reader:
        if any(fields):
            yield begin, fields
        begin = reader.line_num + 1
