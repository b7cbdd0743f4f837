# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""How well the Dice of masks is predicted: against their truth, and against simpler guesses.

    python benchmarks/predicted_quality.py --scans CHAOS/imagesTr --labels CHAOS/labelsTr --masks masks/chaos \
        --scans PH2/images --labels PH2/masks --masks masks/ph2 --minutes 20 --results docs/which_masks_to_trust.md

Each folder of masks that has no ``quality.csv`` is made first, by ``monai_fewshot.segment`` after the first scan that
has a label, or after ``--example``. Masks that exist, by whatever method, are compared as they are. The line that
predicts is fitted anew on the other sets, each counted alike, before it is tried on a set, and is also taken as the
package has it. Labels are read for the comparison alone.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from PIL import Image
from scipy.stats import rankdata, spearmanr

from monai_fewshot import segment
from monai_fewshot.apps.benchmark import replace_between
from monai_fewshot.metrics import CONFIDENCE_LINE, QUALITY_TABLE, REVERSE_LINE, PredictedQuality, QualityLine

LOW = 0.7
ENDINGS = (".nii.gz", ".nii", ".png", ".bmp", ".jpg")
SHARE = (0.01, 0.99)
"""Dice and evidence are brought within this before their log-odds are taken."""


class Judged(NamedTuple):
    """The masks of a set.

    Attributes:
        name: of the set.
        dice: of each scan and class.
        rows: what was predicted of it.
    """

    name: str
    dice: np.ndarray
    rows: list[PredictedQuality]


def read(file: Path) -> np.ndarray:
    """Read a label map or a picture's mask."""
    if file.name.endswith((".nii", ".nii.gz")):
        return np.asanyarray(nibabel.load(file).dataobj)
    pixels = np.asarray(Image.open(file).convert("L"))
    return pixels if pixels.max() < 128 else (pixels > 127).astype(np.uint8)


def label_of(name: str, labels: Path) -> Path | None:
    """Find the label of a scan."""
    return next((labels / f"{name}{ending}" for ending in ENDINGS if (labels / f"{name}{ending}").is_file()), None)


def judge(masks: Path, labels: Path, example: str) -> Judged:
    """Compare masks with their truth; the example, and classes that a scan does not have, are left out."""
    dice, rows = [], []
    for row in QUALITY_TABLE.read(masks / "quality.csv"):
        truth = label_of(row.scan, labels)
        mask = next(masks.glob(f"{row.scan}_seg.*"), None)
        if truth is None or mask is None or row.scan == example:
            continue
        one, other = read(mask) == row.label, read(truth) == row.label
        if other.any():
            dice.append(2 * (one & other).sum() / (one.sum() + other.sum()))
            rows.append(row)
    return Judged(masks.name, np.array(dice), rows)


def log_odds(values: np.ndarray) -> np.ndarray:
    """Take log-odds, away from 0 and 1."""
    bounded = np.clip(values, *SHARE)
    return np.log(bounded / (1 - bounded))


def evidence(judged: Judged) -> np.ndarray:
    """Take the log-odds of what was predicted from, NaN for a class that was not found."""
    return log_odds(np.array([row.evidence for row in judged.rows]))


def fit(sets: Sequence[Judged]) -> QualityLine:
    """Fit a line to sets that count alike, whatever their size."""
    x, y, weight = [], [], []
    for judged in sets:
        given = evidence(judged)
        kept = ~np.isnan(given)
        x.append(given[kept])
        y.append(log_odds(judged.dice[kept]))
        weight.append(np.full(kept.sum(), kept.sum() ** -0.5))
    given, dice, weights = map(np.concatenate, (x, y, weight))
    slope, intercept = np.polyfit(given, dice, 1, w=weights)
    misses = (dice - intercept - slope * given) * weights
    return QualityLine(float(intercept), float(slope), math.sqrt(float((misses**2).sum()) / len(sets)))


def area(low: np.ndarray, predicted: np.ndarray) -> float:
    """Area under the curve of finding the masks that are low by their predicted Dice."""
    ranks, number = rankdata(-predicted), low.sum()
    if number in (0, len(low)):
        return math.nan
    return float((ranks[low].sum() - number * (number + 1) / 2) / (number * (len(low) - number)))


def cells(judged: Judged, line: QualityLine) -> list[str]:
    """Figures of a set under a line."""
    dice, low, high = np.array([line(row.evidence) for row in judged.rows]).T
    within = ((judged.dice >= low) & (judged.dice <= high)).mean()
    return [
        f"{np.abs(dice - judged.dice).mean():.3f}",
        f"{spearmanr(dice, judged.dice).statistic:.2f}",
        f"{area(judged.dice < LOW, dice):.2f}",
        f"{100 * within:.0f} %",
    ]


def main() -> None:
    """Segment where there are no masks, compare, print, and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("scans", "labels", "masks"):
        parser.add_argument(f"--{name}", type=Path, action="append", required=True)
    parser.add_argument("--example", action="append", default=[], help="name of the annotated scan of each set")
    parser.add_argument("--method", default="self_training")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--results", type=Path, help="file with a table between marks, which is replaced")
    given = parser.parse_args()
    sets = []
    for number, (scans, labels, masks) in enumerate(zip(given.scans, given.labels, given.masks, strict=True)):
        names = {file.name.split(".")[0]: file for file in sorted(scans.iterdir()) if not file.name.startswith(".")}
        chosen = given.example[number] if given.example else next(n for n in names if label_of(n, labels))
        truth = label_of(chosen, labels)
        if chosen not in names or truth is None:
            raise SystemExit(f"There is no scan {chosen} with a label in {scans} and {labels}.")
        if not (masks / "quality.csv").is_file():
            segment(scans, [(names[chosen], truth)], masks, given.method, given.minutes)
        sets.append(judge(masks, labels, chosen))
    known = CONFIDENCE_LINE if given.method in ("self_training", "supervised") else REVERSE_LINE
    lines = [
        "| set | masks | mean Dice | below 0.7 | line of | error | guessing the mean | rank | area | in the interval |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for judged in sets:
        others = [each for each in sets if each is not judged]
        fitted = {"other sets": fit(others)} if others else {}
        for title, line in {**fitted, "the package": known}.items():
            error, *further = cells(judged, line)
            guess = np.abs(judged.dice - judged.dice.mean()).mean()
            row = [judged.name, len(judged.dice), f"{judged.dice.mean():.3f}", (judged.dice < LOW).sum(), title, error]
            lines.append("| " + " | ".join(map(str, [*row, f"{guess:.3f}", *further])) + " |")
    print("\n".join(lines))
    print("fitted on all sets:", fit(sets))
    if given.results:
        replace_between(given.results, "predicted-quality", "\n".join(lines))


if __name__ == "__main__":
    main()
