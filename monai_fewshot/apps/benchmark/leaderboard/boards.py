# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Literal

from monai_fewshot.apps.benchmark.matrix.cells import MatrixCell, planned_cells
from monai_fewshot.apps.benchmark.matrix.description import Matrix, Row
from monai_fewshot.metrics import ScanScore, distance_unit, read_scores, summarize

from .figures import deviation_of_defined, mean_of_defined
from .published import PUBLISHED
from .significance import Comparison, compare_paired

__all__ = ["Board", "Figure", "Standing", "boards", "scope_of"]

Metric = Literal["dice", "hd95"]
IN_RANGE, WHOLE = "in range", "whole volume"


def scope_of(score: ScanScore) -> str:
    """What a score is of: the slices between the first and the last of its class, or all."""
    return WHOLE if score.protocol == "whole_volume" else IN_RANGE


@dataclass(frozen=True)
class Figure:
    """A mean with its spreads.

    Attributes:
        mean: over folds, then seeds; Dice in percent, HD95 in the unit of the scores; NaN where undefined.
        over_folds: standard deviation over folds of the means over seeds; None of a single fold.
        over_seeds: standard deviation over seeds of the means over folds; None of a single seed.
    """

    mean: float
    over_folds: float | None
    over_seeds: float | None


class Standing:
    """What the cells of a row gave.

    Args:
        row: the row.
        cells: its cells, done or not.

    Attributes:
        done: cells that are done.
        scores: by seed and fold, where all classes have been tested; classes are numbered as the row has them.
    """

    def __init__(self, row: Row, cells: Sequence[MatrixCell]) -> None:
        self.row = row
        self.cells = cells
        self.results = {cell.name: results for cell in cells if (results := cell.results()) is not None}
        self.done = [cell for cell in cells if cell.name in self.results]
        numbers = {name.casefold(): number for number, name in enumerate(row.classes, 1)}
        self.scores: dict[tuple[int, int], list[ScanScore]] = {}
        for key in dict.fromkeys((cell.seed, cell.fold) for cell in cells):
            together = [cell for cell in cells if (cell.seed, cell.fold) == key]
            if all(cell in self.done for cell in together):
                scores = [score for cell in together for score in read_scores(cell.folder / "results.csv")]
                self.scores[key] = [_numbered(score, numbers, key[1]) for score in scores]

    @property
    def scopes(self) -> list[str]:
        """What there are scores of."""
        found = {scope_of(score) for scores in self.scores.values() for score in scores}
        return sorted(found)

    @cached_property
    def _means(self) -> dict[tuple[str, int | None, int, int], tuple[float, float, int]]:
        """Dice, HD95 and how many of these are undefined, by scope, class (None: all), seed and fold."""
        return {
            (row.protocol, row.class_number, *key): (100 * row.dice, row.hd95, row.undefined_hd95)
            for key, scores in self.scores.items()
            for row in summarize([replace(score, protocol=scope_of(score)) for score in scores])
            if row.fold is not None
        }

    def figure(self, scope: str, metric: Metric, class_number: int | None = None) -> Figure:
        """Mean and spreads of a class, or of all."""
        place = 0 if metric == "dice" else 1
        values = {key: self._means.get((scope, class_number, *key)) for key in self.scores}
        found = {key: value[place] for key, value in values.items() if value is not None}
        folds = [mean_of_defined(v for (_, fold), v in found.items() if fold == one) for one in self._parts(1)]
        seeds = [mean_of_defined(v for (seed, _), v in found.items() if seed == one) for one in self._parts(0)]
        return Figure(mean_of_defined(folds), deviation_of_defined(folds), deviation_of_defined(seeds))

    def _parts(self, place: int) -> list[int]:
        return sorted({key[place] for key in self.scores})

    def undefined_hd95(self, scope: str) -> int:
        """How many scans and classes have no HD95."""
        return sum(means[2] for key, means in self._means.items() if key[0] == scope and key[1] is None)

    @property
    def hd95_unit(self) -> str:
        """Unit of HD95."""
        return distance_unit(score for scores in self.scores.values() for score in scores)

    def by_scan(self, scope: str) -> dict[str, float]:
        """Dice in percent of every scan, averaged over classes, then seeds."""
        by_seed: dict[str, dict[int, list[float]]] = {}
        for (seed, fold), scores in self.scores.items():
            for score in scores:
                if scope_of(score) == scope:
                    by_seed.setdefault(f"{fold}/{score.scan}", {}).setdefault(seed, []).append(100 * score.dice)
        return {
            scan: mean_of_defined(mean_of_defined(values) for values in seeds.values())
            for scan, seeds in by_seed.items()
        }

    def minutes(self, part: Literal["training", "evaluation"]) -> float:
        """Mean minutes that a training, or an evaluation, was busy, NaN where there is none."""
        found = [results[part]["busy_seconds"] / 60 for results in self.results.values() if results[part] is not None]
        return mean_of_defined(found)

    def memory_mb(self) -> tuple[float, bool]:
        """Most memory that any of the processes used, and whether it is a GPU's."""
        parts = [results[part] for results in self.results.values() for part in ("training", "evaluation")]
        for key in ("peak_gpu_memory_mb", "peak_memory_mb"):
            found = [part[key] for part in parts if part is not None and part[key] is not None]
            if found:
                return max(found), key == "peak_gpu_memory_mb"
        return math.nan, False

    def failures(self) -> dict[str, str]:
        """Reasons of the cells that failed, by name."""
        reasons = {cell.name: cell.failure() for cell in self.cells if cell not in self.done}
        return {name: reason for name, reason in reasons.items() if reason is not None}


@dataclass(frozen=True)
class Board:
    """One table: a data set in a setting, or a pair of data sets.

    Attributes:
        standings: in the order of the methods.
        reference: the row that others are compared with.
        published: Dice in percent by method and class, of the same data set and setting.
    """

    standings: tuple[Standing, ...]
    reference: Standing | None
    published: dict[str, dict[str, float]]

    @property
    def row(self) -> Row:
        """One of its rows."""
        return self.standings[0].row

    @property
    def title(self) -> str:
        """What the table is of."""
        row = self.row
        if row.train is not row.test:
            return f"Trained on {row.train.title}, tested on {row.test.title}"
        return row.test.title + f", setting {row.setting}" * (row.test.settings != (1,))

    @property
    def ranked(self) -> list[Standing]:
        """Rows that have a figure, the highest Dice in the first scope first."""
        there = [standing for standing in self.standings if standing.scores]
        return sorted(there, key=lambda standing: -standing.figure(standing.scopes[0], "dice").mean)

    @property
    def scopes(self) -> list[str]:
        """Protocols of all rows, those in range first."""
        return sorted({scope for standing in self.standings for scope in standing.scopes})

    def compare(self, standing: Standing, scope: str) -> Comparison | None:
        """Compare a row with the reference; None with itself, or where either has nothing."""
        if self.reference is None or standing is self.reference or not self.reference.scores or not standing.scores:
            return None
        return compare_paired(standing.by_scan(scope), self.reference.by_scan(scope))


def boards(matrix: Matrix) -> list[Board]:
    """Tables of a benchmark, with what has been done so far.

    Args:
        matrix: what was asked for.

    Returns:
        The tables.
    """

    def table(row: Row) -> tuple[str, str, int]:
        return row.train.name, row.test.name, row.setting

    return [_board(matrix, rows) for _, rows in groupby(matrix.rows(), key=table)]


def _board(matrix: Matrix, rows: Iterable[Row]) -> Board:
    standings = tuple(Standing(row, list(planned_cells(matrix, row))) for row in rows)
    reference = next((standing for standing in standings if standing.row.method.name == matrix.reference), None)
    row = standings[0].row
    within = row.train is row.test
    return Board(standings, reference, PUBLISHED.get((row.test.published, row.setting), {}) if within else {})


def _numbered(score: ScanScore, numbers: dict[str, int], fold: int) -> ScanScore:
    return replace(score, fold=fold, class_number=numbers[score.class_name.casefold()])
