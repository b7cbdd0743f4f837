# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_fewshot.data import ScanFacts
from monai_fewshot.utils import write_atomically

__all__ = ["ScanProblem", "problems_of", "write_problems"]

OTHERWISE = "Look at the scan; export it again, or leave it out."


@dataclass(frozen=True)
class ScanProblem:
    """What is wrong with a scan.

    Attributes:
        scan: its name.
        file: its file; its name for a DICOM series, whose files may name a patient.
        problem: what is wrong.
        remedy: what to do.
    """

    scan: str
    file: str
    problem: str
    remedy: str = OTHERWISE

    @classmethod
    def from_text(cls, scan: str, file: str, text: str) -> ScanProblem:
        """Part an error's text, ``FILE: is wrong; do this``, into what is wrong and what to do."""
        text = text.removeprefix(f"{file}: ").strip()
        parts = re.match(r"((?:\([^()]*\)|[^(])*?(?:; expected [^.]*)?)(?:; (?!expected )|\. )(.+)", text, re.DOTALL)
        if parts is None:
            return cls(scan, file, text)
        remedy = parts[2][:1].upper() + parts[2][1:]
        return cls(scan, file, parts[1], remedy)


def problems_of(facts: Iterable[ScanFacts]) -> list[ScanProblem]:
    """List the problems of scans that cannot be used."""
    return [ScanProblem.from_text(scan.name, scan.file, text) for scan in facts for text in scan.problems]


def write_problems(path: Path, problems: Sequence[ScanProblem]) -> Path:
    """Write ``problems.csv``; a table without rows where there are none.

    Args:
        path: the file.
        problems: one for each row.

    Returns:
        The path.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["scan", "file", "what is wrong", "what to do"])
    writer.writerows([problem.scan, problem.file, problem.problem, problem.remedy] for problem in problems)
    return write_atomically(path, text.getvalue())
