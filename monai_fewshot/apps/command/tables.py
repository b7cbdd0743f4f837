# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from monai_fewshot.data import ScanFacts

from .problems import ScanProblem
from .survey import Survey

__all__ = ["print_problems", "print_survey"]


def print_survey(survey: Survey, title: str, training_minutes: float, console: Console) -> None:
    """Print what a folder of scans holds, what may be wrong, and how long it would take.

    Args:
        survey: of the folder.
        title: of the table.
        training_minutes: of the default method.
        console: where to print.
    """
    table = Table(title=escape(title), show_header=True)
    table.add_column("")
    columns = [("scans", survey.usable), *((f"example {scan.name}", [scan]) for scan in survey.examples)]
    for name, _ in columns:
        table.add_column(escape(name), overflow="fold")
    for heading, describe in ROWS.items():
        table.add_row(heading, *(escape(describe(facts)) for _, facts in columns))
    if survey.examples:
        table.add_row("classes", "", *(escape(_classes(scan, survey)) for scan in survey.examples))
    console.print(table)
    print_problems(survey.problems, console)
    for warning in survey.warnings:
        console.print(f"[yellow]WARNING[/yellow]: {escape(warning)}", soft_wrap=True)
    console.print(
        f"Rough time of monai-fewshot segment: {training_minutes:g} minutes of training (--minutes), and "
        f"{max(1, round(survey.minutes))} minute(s) to segment {len(survey.usable)} scan(s).",
        soft_wrap=True,
    )


def print_problems(problems: Sequence[ScanProblem], console: Console) -> None:
    """Print which scans cannot be used, and what to do; nothing where there are none."""
    if not problems:
        return
    table = Table(title=f"{len(problems)} problem(s)")
    for heading in ("scan", "what is wrong", "what to do"):
        table.add_column(heading, overflow="fold")
    for problem in problems:
        table.add_row(*map(escape, (problem.scan or problem.file, problem.problem, problem.remedy)))
    console.print(table)


def _range(rows: Iterable[Sequence[float]]) -> str:
    """Lowest and highest of each column."""
    columns = list(zip(*rows, strict=False))
    return " x ".join(_from_to(min(column), max(column)) for column in columns) or "-"


def _from_to(low: float, high: float) -> str:
    return f"{low:.4g}" if f"{low:.4g}" == f"{high:.4g}" else f"{low:.4g}-{high:.4g}"


def _counted(items: Iterable[object]) -> str:
    counts = Counter(str(item) for item in items)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{item} ({count})" for item, count in counts.most_common()) or "-"


def _values(facts: Sequence[ScanFacts]) -> str:
    values = [scan.values for scan in facts if scan.values]
    return f"{min(v[0] for v in values):.4g} to {max(v[3] for v in values):.4g}" if values else "-"


def _classes(scan: ScanFacts, survey: Survey) -> str:
    return ", ".join(
        f"{number} {survey.classes.get(number, '')} ({count} voxels)" for number, count in scan.class_voxels.items()
    )


ROWS: dict[str, Callable[[Sequence[ScanFacts]], str]] = {
    "number": lambda facts: str(len(facts)),
    "format": lambda facts: _counted(scan.format for scan in facts),
    "modality": lambda facts: _counted(scan.modality or "not told" for scan in facts),
    "size, voxels": lambda facts: _range(scan.size for scan in facts),
    "spacing, mm": lambda facts: _range(scan.spacing for scan in facts),
    "axes lead to": lambda facts: _counted(scan.axes for scan in facts),
    "channels": lambda facts: _counted(scan.channels for scan in facts),
    "values": _values,
}
