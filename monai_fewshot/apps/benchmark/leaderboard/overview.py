# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from monai_fewshot.apps.benchmark.matrix.description import Matrix

from .boards import WHOLE, Board, Standing
from .figures import markdown_table

__all__ = ["method_colors", "overview_figure", "overview_header", "overview_markdown", "overview_rows"]

MOST_COLUMNS, TITLE_WIDTH = 5, 34


def overview_header(found: Sequence[Board]) -> list[str]:
    """Names of the columns of the table of all tables."""
    return ["method", "learns from", *(board.title for board in found)]


def overview_rows(found: Sequence[Board]) -> list[list[str]]:
    """Mean Dice of all methods in all tables, on the whole volume and in brackets in range.

    Args:
        found: the tables.

    Returns:
        A row for each method that has a figure, by its Dice on the whole volumes of the first table.
    """
    by_method: dict[str, dict[int, Standing]] = {}
    for place, board in enumerate(found):
        for standing in board.ranked:
            by_method.setdefault(standing.row.method.name, {})[place] = standing
    rows = []
    for standings in by_method.values():
        method = next(iter(standings.values())).row.method
        cells = [_text(standings[place]) if place in standings else "-" for place in range(len(found))]
        first = standings[0].figure(WHOLE, "dice").mean if 0 in standings else math.nan
        rows.append((first, [method.title, str(method.learns_from).replace("_", " "), *cells]))
    rows.sort(key=lambda row: -row[0] if row[0] == row[0] else math.inf)
    return [cells for _, cells in rows]


def overview_markdown(found: Sequence[Board], num_rows: int | None = None) -> str:
    """The table of all tables.

    Args:
        found: the tables.
        num_rows: of the first rows to show. Defaults to None, all.

    Returns:
        Markdown; empty where nothing has been run.
    """
    rows = overview_rows(found)
    return markdown_table(overview_header(found), rows[:num_rows]) if rows else ""


def method_colors(matrix: Matrix) -> dict[str, str]:
    """A color for every method by its title, the same in all pictures."""
    cycle = colormaps["tab10" if len(matrix.methods) <= 10 else "tab20"]
    return {method.title: to_hex(cycle(place % cycle.N)) for place, method in enumerate(matrix.methods)}


def overview_figure(found: Sequence[Board], colors: Mapping[str, str]) -> Figure:
    """Bars of mean Dice on whole volumes, a panel for each table, with a tick where Dice in range is.

    Args:
        found: the tables; those without a figure are left out.
        colors: by title of the method.
    """
    shown = [board for board in found if board.ranked]
    names = [title for title in colors if any(title in _by_title(board) for board in shown)]
    rows = math.ceil(len(shown) / MOST_COLUMNS)
    columns = math.ceil(len(shown) / rows)
    figure = Figure(figsize=(3.0 * columns + 2, rows * (0.7 + 0.22 * len(names))), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, sharex=True, squeeze=False).ravel()
    for axes, board in zip(grid, shown, strict=False):
        standings = _by_title(board)
        for place, title in enumerate(names):
            if title in standings:
                whole, in_range = (standings[title].figure(scope, "dice").mean for scope in (WHOLE, board.scopes[0]))
                axes.barh(place, whole, color=colors[title], height=0.7)
                axes.plot([in_range], [place], "|", color="black", markersize=9)
        axes.set_title(textwrap.fill(board.title, TITLE_WIDTH), fontsize=9, parse_math=False)
        axes.set(xlim=(0, 100), yticks=range(len(names)))
        axes.tick_params(labelsize=9)
        axes.grid(axis="x", color="#e3e7ec")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for label in grid[0].set_yticklabels(names):
        label.set_parse_math(False)
    grid[0].invert_yaxis()
    for axes in grid[len(shown) - columns : len(shown)]:
        axes.tick_params(labelbottom=True)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    figure.supxlabel("Dice (%): bar on the whole volume, tick in range", fontsize=9)
    return figure


def _by_title(board: Board) -> dict[str, Standing]:
    return {standing.row.method.title: standing for standing in board.ranked}


def _text(standing: Standing) -> str:
    whole = standing.figure(WHOLE, "dice").mean
    in_range = [standing.figure(scope, "dice").mean for scope in standing.scopes if scope != WHOLE]
    return f"{whole:.1f}" + "".join(f" ({value:.1f})" for value in in_range)
