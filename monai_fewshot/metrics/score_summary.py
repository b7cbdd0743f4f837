# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["FAILED_DICE", "ScanScore", "ScoreSummary", "distance_unit", "summarize"]

FAILED_DICE = 0.5
"""Dice below which a mask counts as failed."""
Metric = Literal["dice", "iou", "hd95"]


@dataclass(frozen=True)
class ScanScore:
    """One class of one scan, scored under one protocol; or of one random episode, in the place of a scan.

    Attributes:
        fold: cross-validation fold that the scan was a query of; of an episode, its run.
        scan: name of the scan, or of the episode.
        class_number: value in the label map.
        class_name: what it stands for.
        protocol: name of the evaluation protocol.
        dice: fraction 0 to 1, NaN where undefined, see :func:`monai_fewshot.metrics.compute_mask_agreement`.
        hd95: 95th percentile of the Hausdorff distance, NaN where undefined.
        hd95_unit: of hd95: "mm"; "voxels" for a scan, or "pixels" for an image, that has no spacing.
        num_slices_scored: slices that the protocol scores.
        num_slices: slices of the scan.
        label_voxels: voxels of the ground truth in the scored slices.
        predicted_voxels: voxels predicted in the scored slices.
    """

    fold: int
    scan: str
    class_number: int
    class_name: str
    protocol: str
    dice: float
    hd95: float
    hd95_unit: str
    num_slices_scored: int
    num_slices: int
    label_voxels: int
    predicted_voxels: int

    @property
    def iou(self) -> float:
        """Intersection over union (Jaccard index), fraction 0 to 1, NaN where Dice is undefined."""
        return self.dice / (2 - self.dice)

    @property
    def intersection(self) -> float:
        """Voxels that are both predicted and in the ground truth."""
        return 0.0 if math.isnan(self.dice) else self.dice * (self.label_voxels + self.predicted_voxels) / 2


@dataclass(frozen=True)
class ScoreSummary:
    """Scores of one protocol, averaged.

    Attributes:
        protocol: name of the evaluation protocol.
        fold: the fold, or None for all of them.
        class_number: the class, or None for all of them.
        class_name: its name, or "mean".
        reduction: "mean", "median" or "runs", over scans; classes and folds are always averaged.
        dice: fraction 0 to 1, NaN where no scan defines it.
        dice_sd: sample standard deviation of the single values behind it, NaN for fewer than two; for "runs" that of
            the runs.
        iou: fraction 0 to 1; for "runs" the pixels of a class are pooled over the episodes of a run, which makes the
            mean over classes the mIoU of the few-shot literature.
        iou_sd: its standard deviation.
        hd95: NaN where no scan defines it.
        hd95_sd: its standard deviation.
        hd95_unit: that of the values behind it; "mm, voxels" and the like where they differ.
        num_values: single values (scans, or scans times classes) that went in, the undefined ones included.
        undefined_dice: how many of them have no Dice and were left out.
        undefined_hd95: how many of them have no HD95 and were left out.
        failed: how many of them have a Dice below :data:`FAILED_DICE`.
        worst_scan: the scan of the lowest Dice, a mean over its classes; empty where no scan defines it.
        worst_dice: that Dice; NaN likewise.
    """

    protocol: str
    fold: int | None
    class_number: int | None
    class_name: str
    reduction: str
    dice: float
    dice_sd: float
    iou: float
    iou_sd: float
    hd95: float
    hd95_sd: float
    hd95_unit: str
    num_values: int
    undefined_dice: int
    undefined_hd95: int
    failed: int
    worst_scan: str
    worst_dice: float


def summarize(scores: Iterable[ScanScore], reductions: Mapping[str, str] | None = None) -> list[ScoreSummary]:
    """Average scores over scans, then classes, then folds, as the field does.

    For every protocol, in the order of appearance: each fold with each of its classes and their mean, then each class
    and their mean over all folds. The order matters where folds or classes differ in the number of their scans: every
    fold counts the same, and in it every class. Undefined values (NaN) are left out and counted.

    Args:
        scores: of one or several folds.
        reductions: by protocol, "mean" or "median" over scans, or "runs" for random episodes: Dice and HD95 are
            averaged over episodes, IoU pools their pixels, and standard deviations are those of the runs. Default: the
            mean.

    Returns:
        The rows; that of fold None and class None is the figure that papers print.

    Raises:
        ValueError: where a scan is scored twice, or a reduction is unknown.

    Example:
        >>> def row(fold, scan, dice):
        ...     return ScanScore(fold, scan, 1, "liver", "alpnet", dice, 4.0, "mm", 9, 30, 5000, 5100)
        >>> rows = summarize([row(0, "a", 0.8), row(0, "b", 0.9), row(1, "c", 0.6)])
        >>> round(rows[-1].dice, 3), rows[-1].fold, rows[-1].class_name
        (0.725, None, 'mean')
    """
    scores = list(scores)
    _check_unique(scores)
    reductions = reductions or {}
    rows: list[ScoreSummary] = []
    for protocol in dict.fromkeys(score.protocol for score in scores):
        mine = [score for score in scores if score.protocol == protocol]
        rows += _summarize_protocol(mine, reductions.get(protocol, "mean"))
    return rows


def distance_unit(scores: Iterable[ScanScore]) -> str:
    """Name the unit of the distances of scores; of all units where they differ."""
    return ", ".join(sorted({score.hd95_unit for score in scores}))


def _check_unique(scores: Sequence[ScanScore]) -> None:
    counts = Counter((score.fold, score.scan, score.class_name, score.protocol) for score in scores)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        fold, scan, class_name, protocol = twice[0]
        raise ValueError(
            f"Scan {scan!r} is scored {counts[twice[0]]} times for class {class_name!r} in fold {fold} under protocol "
            f"{protocol!r} ({len(twice)} such cases). Give every fold once, and every scan a name of its own."
        )


def _summarize_protocol(scores: Sequence[ScanScore], reduction: str) -> list[ScoreSummary]:
    if reduction not in ("mean", "median", "runs"):
        protocol = scores[0].protocol
        raise ValueError(
            f"The reduction of protocol {protocol!r} must be 'mean', 'median' or 'runs', got {reduction!r}."
        )
    return [
        _summary_row([score for score in scores if fold in (None, score.fold)], fold, number, reduction)
        for fold in (*_folds(scores), None)
        for number in (*_class_numbers(score for score in scores if fold in (None, score.fold)), None)
    ]


def _summary_row(scores: Sequence[ScanScore], fold: int | None, number: int | None, reduction: str) -> ScoreSummary:
    single = [score for score in scores if number in (None, score.class_number)]
    dice, hd95 = [score.dice for score in single], [score.hd95 for score in single]
    worst_scan, worst_dice = _worst(single)
    return ScoreSummary(
        protocol=single[0].protocol,
        fold=fold,
        class_number=number,
        class_name="mean" if number is None else single[0].class_name,
        reduction=reduction,
        dice=_average(single, "dice", reduction),
        dice_sd=_spread(single, "dice", reduction),
        iou=_average(single, "iou", reduction),
        iou_sd=_spread(single, "iou", reduction),
        hd95=_average(single, "hd95", reduction),
        hd95_sd=_spread(single, "hd95", reduction),
        hd95_unit=distance_unit(single),
        num_values=len(single),
        undefined_dice=len(dice) - len(_defined(dice)),
        undefined_hd95=len(hd95) - len(_defined(hd95)),
        failed=sum(value < FAILED_DICE for value in dice),
        worst_scan=worst_scan,
        worst_dice=worst_dice,
    )


def _worst(scores: Sequence[ScanScore]) -> tuple[str, float]:
    """Name and mean Dice of the worst scan, the first of equal ones."""
    by_scan: dict[tuple[int, str], list[float]] = {}
    for score in scores:
        by_scan.setdefault((score.fold, score.scan), []).append(score.dice)
    means = [(scan, _reduce(values)) for (_, scan), values in by_scan.items() if _defined(values)]
    return min(means, key=lambda item: item[1], default=("", math.nan))


def _average(scores: Sequence[ScanScore], metric: Metric, reduction: str) -> float:
    return _reduce(list(_by_fold(scores, metric, reduction).values()))


def _spread(scores: Sequence[ScanScore], metric: Metric, reduction: str) -> float:
    if reduction == "runs":
        return _deviation(_by_fold(scores, metric, reduction).values())
    return _deviation([getattr(score, metric) for score in scores])


def _by_fold(scores: Sequence[ScanScore], metric: Metric, reduction: str) -> dict[int, float]:
    """Average over scans, then classes."""
    cells: dict[int, dict[int, list[ScanScore]]] = {}
    for score in scores:
        cells.setdefault(score.fold, {}).setdefault(score.class_number, []).append(score)
    return {
        fold: _reduce([_of_cell(cell, metric, reduction) for cell in by_class.values()])
        for fold, by_class in cells.items()
    }


def _of_cell(cell: Sequence[ScanScore], metric: Metric, reduction: str) -> float:
    if reduction == "runs" and metric == "iou":
        union = sum(score.label_voxels + score.predicted_voxels - score.intersection for score in cell)
        return sum(score.intersection for score in cell) / union if union else math.nan
    over_scans = statistics.median if reduction == "median" else statistics.fmean
    return _reduce([getattr(score, metric) for score in cell], over_scans)


def _reduce(values: Sequence[float], over: Callable[[list[float]], float] = statistics.fmean) -> float:
    defined = _defined(values)
    return over(defined) if defined else math.nan


def _deviation(values: Iterable[float]) -> float:
    defined = _defined(values)
    return statistics.stdev(defined) if len(defined) > 1 else math.nan


def _defined(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _folds(scores: Iterable[ScanScore]) -> list[int]:
    return sorted({score.fold for score in scores})


def _class_numbers(scores: Iterable[ScanScore]) -> list[int]:
    return sorted({score.class_number for score in scores})
