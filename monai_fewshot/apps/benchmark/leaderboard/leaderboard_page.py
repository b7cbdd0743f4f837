# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure as Picture

from monai_fewshot.apps.benchmark.matrix.description import Matrix
from monai_fewshot.metrics import ScanScore
from monai_fewshot.visualize import Panel, SliceCase, box_figure, overlay_figure, read_cases, render_page

from .boards import Board, Standing, scope_of
from .leaderboard_text import TableRow, class_rows, leaderboard_header, leaderboard_rows, notes
from .overview import method_colors, overview_figure, overview_header, overview_rows

__all__ = ["leaderboard_page"]

SHOWN = (0.1, 0.5, 0.9)
"""Which cases of a class are shown: places among them by the mean Dice of all methods, from the worst, 0, to 1."""


def leaderboard_page(found: Sequence[Board], matrix: Matrix, provenance: Mapping[str, Any]) -> str:
    """All tables with plots by class and the same cases across methods, as one HTML page that needs nothing else.

    Args:
        found: the tables.
        matrix: what was asked for.
        provenance: what made them.

    Returns:
        The page.
    """
    colors = method_colors(matrix)
    sections = [_section(board, colors) for board in found]
    explained = list(notes(found, matrix))
    overview = {
        "overview": overview_figure(found, colors) if any(board.ranked for board in found) else None,
        "overview_header": overview_header(found),
        "overview_rows": [TableRow(cells) for cells in overview_rows(found)],
    }
    return render_page("benchmark.html", provenance, title=matrix.title, sections=sections, notes=explained, **overview)


def _section(board: Board, colors: Mapping[str, str]) -> dict[str, Any]:
    ranked = board.ranked
    return {
        "title": board.title,
        "header": leaderboard_header(board),
        "rows": leaderboard_rows(board),
        "class_header": ["Method", "", *board.row.classes],
        "class_rows": class_rows(board),
        "boxes": {scope: _boxes(board, scope, colors) for scope in board.scopes} if ranked else {},
        "gallery": _gallery(board, colors),
        "waiting": [standing.row.method.title for standing in board.standings if not standing.scores],
        "failures": {name: why for standing in board.standings for name, why in standing.failures().items()},
    }


def _boxes(board: Board, scope: str, colors: Mapping[str, str]) -> Picture:
    """Box plots by class, methods beside one another."""
    scores = [
        replace(score, protocol=standing.row.method.title)
        for standing in board.ranked
        for group in standing.scores.values()
        for score in group
        if scope_of(score) == scope
    ]
    shown = {standing.row.method.title: colors[standing.row.method.title] for standing in board.ranked}
    return box_figure(scores, board.row.classes, shown)


def _gallery(board: Board, colors: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Of each class cases that all methods have, by their mean Dice."""
    ranked = board.ranked
    stores = {standing.row.method.title: _cases(standing) for standing in ranked}
    scores = {standing.row.method.title: _dice(standing, board.scopes[0]) for standing in ranked}
    gallery: dict[str, list[dict[str, Any]]] = {}
    for class_name in board.row.classes:
        keys = [key for key in _shared(list(stores.values())) if key[2] == class_name.casefold()]
        keys = [key for key in keys if all(key in found for found in scores.values())]
        keys.sort(key=lambda key: sum(found[key].dice for found in scores.values()))
        places = dict.fromkeys(round(place * (len(keys) - 1)) for place in SHOWN) if keys else {}
        for place in places:
            key = keys[place]
            dice = {title: found[key].dice for title, found in scores.items()}
            picture = _panels({title: store[key] for title, store in stores.items()}, dice, colors)
            gallery.setdefault(class_name, []).append({"fold": key[0], "scan": key[1], "picture": picture})
    return gallery


Key = tuple[int, str, str]


def _shared(stores: Sequence[Mapping[Key, Any]]) -> list[Key]:
    return [key for key in stores[0] if all(key in store for store in stores)] if stores else []


def _cases(standing: Standing) -> dict[Key, SliceCase]:
    """Pictures of the first seed, by fold, scan and class."""
    seed = min(seed for seed, _ in standing.scores)
    files = [cell.folder / "cases.npz" for cell in standing.done if cell.seed == seed]
    cases = [case for file in files if file.is_file() for case in read_cases(file)]
    return {(case.fold, case.scan, case.class_name.casefold()): case for case in cases}


def _dice(standing: Standing, scope: str) -> dict[Key, ScanScore]:
    seed = min(seed for seed, _ in standing.scores)
    return {
        (score.fold, score.scan, score.class_name.casefold()): score
        for (one, _), scores in standing.scores.items()
        for score in scores
        if one == seed and scope_of(score) == scope and score.dice == score.dice
    }


def _panels(cases: Mapping[str, SliceCase], dice: Mapping[str, float], colors: Mapping[str, str]) -> Picture:
    """The slice once a method, with the outlines of the ground truth and of what was found in range."""
    panels = [
        Panel(
            case.image,
            {"ground truth": case.label, title: case.predictions[0]},
            f"{title}: {100 * dice[title]:.1f}",
            case.pixel_aspect,
            {title: colors[title]},
        )
        for title, case in cases.items()
    ]
    return overlay_figure(panels)
