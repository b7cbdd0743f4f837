# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_fewshot.metrics import FAILED_DICE, ScanScore, distance_unit, summarize
from monai_fewshot.utils import write_atomically

from .cases import SliceCase, select_cases
from .overlay import COLORS
from .page import render_page
from .report_figures import box_figure, case_figure, protocol_colors

if TYPE_CHECKING:
    from monai_fewshot.inferers.protocol import SegmentationProtocol

__all__ = ["EPISODE_WORDS", "IMAGE_WORDS", "VOLUME_WORDS", "ReportWords", "write_report"]

SLICES = {
    "span": "from the first to the last slice of the class in the query's ground truth",
    "present": "those that hold the class in the query's ground truth",
    "volume": "all; the query's ground truth is not used",
}


ROWS_SHOWN = 200
"""Rows of single scans or episodes in a report; of more, as many of the best and of the worst."""


@dataclass(frozen=True)
class ReportWords:
    """What a report calls things.

    Attributes:
        item: what is scored.
        group: what items belong to.
        scope: what the scores are, for protocols that do not use the query's ground truth.
    """

    item: str = "scan"
    group: str = "fold"
    scope: str = "whole volume, as in use"


VOLUME_WORDS = ReportWords()
"""For scans, scored by fold."""
EPISODE_WORDS = ReportWords("episode", "run", "random episodes")
"""For runs of random episodes of 2D images."""
IMAGE_WORDS = ReportWords("image", "fold", "all images but the support")
"""For 2D images, scored by fold."""


def write_report(
    path: str | os.PathLike[str],
    scores: Sequence[ScanScore],
    cases: Iterable[SliceCase],
    protocols: Sequence[SegmentationProtocol],
    provenance: Mapping[str, Any],
    title: str = "Few-shot segmentation",
    words: ReportWords = VOLUME_WORDS,
) -> Path:
    """Write an evaluation as one HTML file that needs nothing else: tables, box plots, overlays, provenance.

    Args:
        path: the file.
        scores: of one or several folds. Dice is printed in percent.
        cases: pictures of the same scans; the best, median and worst of each class by the first protocol's Dice are
            shown.
        protocols: those in the scores, the one that matters first.
        provenance: what made the scores: config, seed, versions, data fingerprint. Single values stand in a table,
            nested ones can be unfolded.
        title: of the page.
        words: what scans and folds are called; :data:`EPISODE_WORDS` for random episodes, :data:`IMAGE_WORDS` for 2D
            images.

    Returns:
        The path.

    Raises:
        ValueError: where there are no scores, or their protocols are not those given.
    """
    names = [protocol.name for protocol in protocols]
    _check(scores, names)
    summary = summarize(scores, {protocol.name: str(protocol.scan_reduction) for protocol in protocols})
    classes = {score.class_number: score.class_name for score in sorted(scores, key=lambda s: s.class_number)}
    colors = protocol_colors(names)
    html = render_page(
        "report.html",
        provenance,
        title=title,
        words=words,
        unit=distance_unit(scores),
        failed_dice=FAILED_DICE,
        pooled=any(protocol.scan_reduction == "runs" for protocol in protocols),
        protocols=protocols,
        slices=SLICES,
        colors=colors,
        truth_color=COLORS["ground truth"],
        classes=classes,
        class_rows=[*classes.items(), (None, "mean")],
        folds=sorted({score.fold for score in scores}),
        summary={(row.protocol, row.fold, row.class_number): row for row in summary},
        num_items=len({(score.fold, score.scan) for score in scores}),
        scans=_by_scan(_best_and_worst(scores)),
        boxes=box_figure(scores, list(classes.values()), colors),
        gallery=_gallery(scores, cases, names[0], list(classes.values()), colors),
    )
    return write_atomically(path, html)


def _check(scores: Sequence[ScanScore], names: Sequence[str]) -> None:
    found = list(dict.fromkeys(score.protocol for score in scores))
    if not scores or set(found) != set(names):
        raise ValueError(
            f"The scores are of the protocols {found}, the report is to show {list(names)}. Give the protocols that "
            "the scan was evaluated with, and their scores."
        )


def _best_and_worst(scores: Sequence[ScanScore]) -> list[ScanScore]:
    if len({(score.fold, score.scan) for score in scores}) <= ROWS_SHOWN:
        return list(scores)
    ranked = sorted((score for score in scores if not math.isnan(score.dice)), key=lambda score: score.dice)
    items = list(dict.fromkeys((score.fold, score.scan) for score in ranked))
    kept = {*items[: ROWS_SHOWN // 2], *items[-ROWS_SHOWN // 2 :]}
    return [score for score in scores if (score.fold, score.scan) in kept]


def _by_scan(scores: Iterable[ScanScore]) -> dict[tuple[int, str], dict[int, dict[str, ScanScore]]]:
    rows: dict[tuple[int, str], dict[int, dict[str, ScanScore]]] = {}
    for score in sorted(scores, key=lambda score: (score.fold, score.scan, score.class_number)):
        by_class = rows.setdefault((score.fold, score.scan), {})
        by_class.setdefault(score.class_number, {})[score.protocol] = score
    return rows


def _gallery(
    scores: Sequence[ScanScore],
    cases: Iterable[SliceCase],
    protocol: str,
    class_names: Sequence[str],
    colors: Mapping[str, str],
) -> dict[str, list[dict[str, Any]]]:
    by_key: dict[tuple[int, str, str], list[ScanScore]] = {}
    for score in scores:
        by_key.setdefault((score.fold, score.scan, score.class_name), []).append(score)
    selected = select_cases(scores, cases, protocol)
    return {
        name: [
            {
                "rank": rank,
                "case": case,
                "scores": by_key[case.fold, case.scan, case.class_name],
                "figure": case_figure(case, colors),
            }
            for rank, case in selected[name].items()
        ]
        for name in class_names
        if name in selected
    }
