# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from monai_fewshot.apps.benchmark.matrix.description import Matrix

from .boards import Board, Figure, Standing
from .figures import markdown_table
from .overview import overview_markdown
from .published import SOURCES
from .significance import Comparison

__all__ = [
    "TableRow",
    "cases_csv",
    "class_rows",
    "leaderboard_header",
    "leaderboard_markdown",
    "leaderboard_rows",
    "notes",
]


def cases_csv(found: Sequence[Board]) -> str:
    """One row for each scan, class, protocol, fold and seed of each row of each table."""
    table = io.StringIO(newline="")
    writer: csv.DictWriter[str] | None = None
    for board in found:
        for standing in board.standings:
            row = standing.row
            for (seed, _), scores in standing.scores.items():
                for score in scores:
                    facts = {"method": row.method.name, "trained_on": row.train.name, "tested_on": row.test.name}
                    values = {**facts, "setting": row.setting, "seed": seed, **asdict(score), "iou": score.iou}
                    if writer is None:
                        writer = csv.DictWriter(table, list(values))
                        writer.writeheader()
                    writer.writerow(values)
    return table.getvalue()


def leaderboard_markdown(found: Sequence[Board], matrix: Matrix) -> str:
    """All tables, and what their figures mean."""
    parts = [part for board in found for part in _parts(board)]
    if overview := overview_markdown(found):
        parts = ["### All tables", "Mean Dice on the whole volume, and in brackets in range.", overview, *parts]
    return "\n\n".join([*parts, *(f"- {note}" for note in notes(found, matrix))]).replace("\n\n- ", "\n- ")


def notes(found: Sequence[Board], matrix: Matrix) -> Iterator[str]:
    """What the figures mean."""
    yield (
        "Dice in percent, HD95 in mm (MONAI's definition) where no other unit is named. In range: only slices between "
        "the first and the last of the class by the query's ground truth count, as in papers; whole volume: all "
        "slices, without ground truth."
    )
    yield "± is the standard deviation over folds; after the semicolon stands that over seeds, where there are several."
    if matrix.reference is not None:
        title = next(method.title for method in matrix.methods if method.name == matrix.reference)
        yield (
            f"Gain over {title}: mean difference of Dice on the same scans, with the two-sided p-value of the Wilcoxon "
            "signed-rank test that the differences are symmetric about zero, and the number of pairs. A pair is a "
            "scan, averaged over classes and seeds. The values are not corrected for the number of comparisons."
        )
    yield (
        "Minutes: means of one training and of one evaluation; memory: the most that one process used, the GPU's where "
        "one was used. Both belong to the machine below."
    )
    cells = [results for board in found for standing in board.standings for results in standing.results.values()]
    machines = dict.fromkeys(f"{results['machine']}, {results['threads']} threads" for results in cells)
    versions = dict.fromkeys(
        ", ".join(f"{name} {version}" for name, version in results["versions"].items()) for results in cells
    )
    codes = dict.fromkeys(results["evaluation"]["code"] for results in cells)
    if cells:
        yield f"Made on {' and '.join(machines)}, with {' and '.join(versions)}, commit {' and '.join(codes)}."
    names = dict.fromkeys(name for board in found for name in board.published)
    if names:
        sources = "; ".join(f"{name}: {SOURCES[name]}" for name in names)
        yield f"Published figures are other people's, of five folds and larger budgets: {sources}."


@dataclass(frozen=True)
class TableRow:
    """Cells of a row of a table, as text, and whether its figures are other people's."""

    cells: list[str]
    published: bool = False


def _parts(board: Board) -> Iterator[str]:
    yield f"### {board.title}"
    header, rows = leaderboard_header(board), leaderboard_rows(board)
    if rows:
        yield markdown_table(header, map(_markdown, rows))
        yield markdown_table(["Dice by class", "", *board.row.classes], map(_markdown, class_rows(board)))
    waiting = [standing.row.method.title for standing in board.standings if not standing.scores]
    if waiting:
        yield f"Not run yet: {', '.join(waiting)}."
    for standing in board.standings:
        for name, reason in standing.failures().items():
            yield f"Failed: {name}: {reason}"


def _markdown(row: TableRow) -> list[str]:
    return [f"*{cell}*" if row.published and cell != "-" else cell for cell in row.cells]


def leaderboard_header(board: Board) -> list[str]:
    """Names of the columns of a table."""
    header = ["method", "learns from"]
    for scope in board.scopes:
        header += [f"Dice {scope}", f"HD95 {scope}"]
    if board.reference is not None:
        header += [f"gain {scope}" for scope in board.scopes]
    return [*header, "training min", "test min", "memory", "cells"]


def leaderboard_rows(board: Board) -> list[TableRow]:
    """Rows of a table, the highest Dice first; published figures after ours."""
    rows = [TableRow(_line(board, standing)) for standing in board.ranked]
    if not rows:
        return []
    for name, by_class in sorted(board.published.items(), key=lambda item: -item[1]["mean"]):
        cells = [name, "published", f"{by_class['mean']:.1f}"]
        rows.append(TableRow([*cells, *["-"] * (len(rows[0].cells) - len(cells))], published=True))
    return rows


def _line(board: Board, standing: Standing) -> list[str]:
    method = standing.row.method
    cells = [method.title, str(method.learns_from).replace("_", " ")]
    for scope in board.scopes:
        undefined = standing.undefined_hd95(scope)
        text = figure_text(standing.figure(scope, "hd95"))
        text += f" {standing.hd95_unit}" * (standing.hd95_unit != "mm")
        cells += [
            figure_text(standing.figure(scope, "dice")),
            text + (f" ({undefined} undefined)" * bool(undefined)),
        ]
    if board.reference is not None:
        cells += [comparison_text(board.compare(standing, scope)) for scope in board.scopes]
    memory, of_gpu = standing.memory_mb()
    cells += [_number(standing.minutes("training")), _number(standing.minutes("evaluation"))]
    done = f"{len(standing.done)} of {len(standing.cells)}"
    return [*cells, f"{memory / 1024:.1f} GB{' GPU' * of_gpu}", done]


def class_rows(board: Board) -> list[TableRow]:
    """Dice of each class in each scope, and the published ones."""
    classes = board.row.classes
    rows = []
    for standing in board.ranked:
        for scope in standing.scopes:
            figures = (standing.figure(scope, "dice", number) for number, _ in enumerate(classes, 1))
            rows.append(TableRow([standing.row.method.title, scope, *map(figure_text, figures)]))
    for name, by_class in board.published.items() if rows else ():
        if set(by_class) & set(classes):
            figures_there = [f"{by_class[key]:.1f}" if key in by_class else "-" for key in classes]
            rows.append(TableRow([name, "published", *figures_there], published=True))
    return rows


def figure_text(figure: Figure) -> str:
    """A figure as text."""
    text = _number(figure.mean)
    text += "" if figure.over_folds is None else f" ± {figure.over_folds:.1f}"
    return text + ("" if figure.over_seeds is None else f"; {figure.over_seeds:.1f}")


def comparison_text(comparison: Comparison | None) -> str:
    """A comparison as text."""
    if comparison is None or not comparison.pairs:
        return "-"
    p = "no difference" if math.isnan(comparison.p_value) else f"p = {comparison.p_value:.2g}"
    return f"{comparison.gain:+.1f} ({p}, {comparison.pairs} pairs)"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"
