# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Case", "Problem", "describe_problems", "doubled_cases"]


@dataclass(frozen=True)
class Case:
    """A scan of a data set as it was downloaded, not yet read.

    Args:
        name: of the prepared scan, and of its files; unique in the data set.
        image: one file, or the files of a series.
        label: one file, or the files of a series; empty for a scan without annotation.
        group: the patient, whose scans no fold parts. Defaults to "", which stands for a patient of its own.
    """

    name: str
    image: tuple[Path, ...]
    label: tuple[Path, ...] = ()
    group: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the scan."""
        return (*self.image, *self.label)

    @property
    def patient(self) -> str:
        """The group, or the name where there is none."""
        return self.group or self.name


@dataclass(frozen=True)
class Problem:
    """What is wrong with a data set.

    Args:
        case: name of the scan; "" for a problem of the whole set.
        path: the file or folder, where it is known.
        text: what is wrong with the values seen, and what to do.
    """

    case: str
    path: Path | None
    text: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.case, str(self.path or ""), self.text)))


def describe_problems(problems: Sequence[Problem], num_cases: int) -> str:
    """Make the text of an error: how many problems in how many scans, and a line for each.

    Args:
        problems: one at least.
        num_cases: number of scans of the data set.

    Returns:
        Several lines.

    Example:
        >>> print(describe_problems([Problem("scan_1", Path("scan_1.nii"), "is empty; download it again.")], 20))
        1 problem(s) in 1 of 20 scans:
        scan_1: scan_1.nii: is empty; download it again.
    """
    broken = {problem.case for problem in problems if problem.case}
    where = f"in {len(broken)} of {num_cases} scans" if broken else f"in a set of {num_cases} scans"
    return "\n".join([f"{len(problems)} problem(s) {where}:", *map(str, problems)])


def doubled_cases(cases: Iterable[Case]) -> list[Problem]:
    """Find scans that share a name, one problem for each of them."""
    cases = list(cases)
    counts = Counter(case.name.lower() for case in cases)
    return [
        Problem(case.name, case.image[0] if case.image else None, "is there more than once; remove or rename one.")
        for case in cases
        if counts[case.name.lower()] > 1
    ]
