# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from monai_fewshot.utils import locked_file, write_atomically

__all__ = ["RowTable"]

KINDS = {"int": int, "float": float, "str": str}
Row = TypeVar("Row")


@dataclass(frozen=True)
class RowTable(Generic[Row]):
    """A CSV file with one row a scan and class, for processes that add to it at once.

    Args:
        row: dataclass of a row, with ``scan`` and ``label`` among its fields, all of ``int``, ``float`` or ``str``.
        content: what the rows are called in errors.
    """

    row: type[Row]
    content: str

    @property
    def columns(self) -> dict[str, Any]:
        """Type by name."""
        return {field.name: KINDS[str(field.type)] for field in fields(self.row)}  # type: ignore[arg-type]

    def write(self, path: str | os.PathLike[str], rows: Iterable[Row]) -> Path:
        """Write rows, sorted by scan and label.

        Args:
            path: the file.
            rows: in any order.

        Returns:
            The path.

        Raises:
            WriteError: where it cannot be written.
        """
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, list(self.columns))
        writer.writeheader()
        written = [asdict(row) for row in rows]  # type: ignore[call-overload]
        writer.writerows(sorted(written, key=lambda row: (row["scan"], row["label"])))
        return write_atomically(path, table.getvalue())

    def add(self, path: str | os.PathLike[str], rows: Sequence[Row]) -> Path:
        """Put rows in the place of those of the same scans; processes may do so at once.

        Args:
            path: the file; a new one where there is none.
            rows: of one scan, or several.

        Returns:
            The path.

        Raises:
            ValueError: where the file holds something else, or cannot be written.
        """
        scans = {row.scan for row in rows}  # type: ignore[attr-defined]
        with locked_file(path):
            others = [row for row in self.read(path) if row.scan not in scans]  # type: ignore[attr-defined]
            return self.write(path, [*others, *rows])

    def read(self, path: str | os.PathLike[str]) -> list[Row]:
        """Read what :meth:`write` wrote.

        Args:
            path: the file.

        Returns:
            Its rows; none where there is no such file.

        Raises:
            ValueError: where it does not hold such rows.
        """
        path = Path(path)
        if not path.is_file():
            return []
        try:
            rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
            return [self.row(**{name: kind(row[name]) for name, kind in self.columns.items()}) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} does not hold {self.content} ({type(error).__name__}: {error}). Move it away, or name another "
                "output folder."
            ) from error
