# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from monai.config import PathLike

from monai_fewshot.metrics import MEASUREMENT_TABLE, QUALITY_TABLE, Measurement, PredictedQuality
from monai_fewshot.utils import locked_file, write_atomically, write_errors

__all__ = ["ResultRecord", "ResultRecords"]


@dataclass(frozen=True)
class ResultRecord:
    """What was written for a scan.

    Attributes:
        scan: its name.
        files: size in bytes of each file, by its path in the output folder.
        measurements: rows that wait to be put into ``measurements.csv``.
        qualities: rows that wait to be put into ``quality.csv``.
        shown: whether the tables and the page hold the scan.
    """

    scan: str
    files: Mapping[str, int]
    measurements: Sequence[Measurement] = field(default_factory=tuple)
    qualities: Sequence[PredictedQuality] = field(default_factory=tuple)
    shown: bool = False

    def line(self) -> str:
        """The record as a line of JSON."""
        content: dict[str, Any] = {"scan": self.scan, "files": dict(self.files)}
        if not self.shown:
            content["measurements"] = [asdict(row) for row in self.measurements]
            content["qualities"] = [asdict(row) for row in self.qualities]
        return json.dumps(content)

    @classmethod
    def of_line(cls, line: str) -> ResultRecord | None:
        """Read a line; None where it was not written to its end, or is no record."""
        try:
            content = json.loads(line)
            shown = "measurements" not in content
            measurements = [Measurement(**row) for row in content.get("measurements", ())]
            qualities = [PredictedQuality(**row) for row in content.get("qualities", ())]
            return cls(content["scan"], dict(content["files"]), measurements, qualities, shown)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


class ResultRecords:
    """Remembers what was written for each scan, so that nobody has to open masks to know.

    A line of ``.results.jsonl`` is added for each scan, after its files are complete; the last line of a scan counts.
    Rows of tables stay in it until :meth:`merge` puts them into the tables, all at once: a table that were written anew
    for every scan would take time that grows with the square of their number. Processes may add lines at once. A run
    that is killed leaves half a line at most, which is passed over.

    Args:
        folder: of the results.

    Example:
        >>> import tempfile
        >>> records = ResultRecords(tempfile.mkdtemp())
        >>> _ = (records.folder / "a_seg.nii.gz").write_bytes(b"voxels")
        >>> records.add("a", [records.folder / "a_seg.nii.gz"])
        >>> records.read()["a"].files
        {'a_seg.nii.gz': 6}
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)
        self.path = self.folder / ".results.jsonl"

    def add(
        self,
        scan: str,
        files: Iterable[Path],
        measurements: Sequence[Measurement] = (),
        qualities: Sequence[PredictedQuality] = (),
    ) -> None:
        """Note that all results of a scan are written.

        Args:
            scan: its name.
            files: in the output folder.
            measurements: its rows.
            qualities: its rows.

        Raises:
            WriteError: where the line cannot be written.
        """
        sizes = {file.relative_to(self.folder).as_posix(): file.stat().st_size for file in files}
        line = f"\n{ResultRecord(scan, sizes, measurements, qualities).line()}\n".encode()
        with locked_file(self.path), write_errors(self.path, len(line)), open(self.path, "ab", buffering=0) as stream:
            stream.write(line)

    def read(self) -> dict[str, ResultRecord]:
        """Read the record of each scan, by its name."""
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return {}
        records = (ResultRecord.of_line(line) for line in lines if line)
        return {record.scan: record for record in records if record is not None}

    def waiting(self) -> list[ResultRecord]:
        """Records that the tables and the page do not hold yet."""
        return [record for record in self.read().values() if not record.shown]

    def merge(self, measurements: Path, qualities: Path) -> list[ResultRecord]:
        """Put the rows of records into the tables, in the place of earlier rows of the same scans.

        Args:
            measurements: the table.
            qualities: likewise.

        Returns:
            The records, for :meth:`mark_shown`.

        Raises:
            ValueError: where a table holds something else, or cannot be written.
        """
        waiting = self.waiting()
        measured = [row for record in waiting for row in record.measurements]
        judged = [row for record in waiting for row in record.qualities]
        if measured:
            MEASUREMENT_TABLE.add(measurements, measured)
        if judged:
            QUALITY_TABLE.add(qualities, judged)
        return waiting

    def mark_shown(self, records: Sequence[ResultRecord]) -> None:
        """Drop the rows of records that tables and page hold, and all lines that do not count any more.

        Args:
            records: those; a scan that was written again meanwhile keeps its rows.

        Raises:
            WriteError: where the file cannot be written.
        """
        if not records:
            return
        shown = {record.line() for record in records}  # as text, for NaN of a row is not equal to itself
        with locked_file(self.path):
            lines = [
                (replace(record, shown=True) if record.line() in shown else record).line()
                for record in self.read().values()
            ]
            write_atomically(self.path, "\n".join([*lines, ""]))
