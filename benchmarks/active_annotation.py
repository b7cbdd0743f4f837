# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Which scan to annotate next: a simulated annotator, who follows ``suggest``, chance, or the lowest predicted quality.

    python benchmarks/active_annotation.py DATASET ... --output OUT --minutes 5 --round-minutes 2 --annotations 4

Of each data set with labels (a folder as for ``monai_fewshot.data.load_scans``), a third of the scans is for testing
and is never annotated. One scan is annotated and ``segment`` is run, then ``refine`` with one more scan at a time, each
with its true label. After each annotation the mean Dice of the scans for testing is printed, and all of it is written
to OUT/active_annotation.csv.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import convert_to_numpy

import monai_fewshot
from monai_fewshot.apps.command.scan_sources import write_scan_list
from monai_fewshot.data import LoadScand, Scan, load_class_names, load_scans
from monai_fewshot.metrics import QUALITY_TABLE

STRATEGIES = ("suggested", "random", "least_confidence")
FIELDS = ("dataset", "seed", "strategy", "annotations", "scan", "dice")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all data sets, seeds and strategies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5.0, help="of the first training; 0: the method's own length")
    parser.add_argument("--round-minutes", type=float, default=2.0, help="of each refinement")
    parser.add_argument("--annotations", type=int, default=4, help="scans that are annotated in the end")
    parser.add_argument("--num-scans", type=int, help="of each data set, at most; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--method", default="self_training")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for dataset in options.datasets:
        for seed in options.seeds:
            for strategy in options.strategies:
                rows += annotate(dataset.absolute(), seed, strategy, options)
                write_rows(options.output / "active_annotation.csv", rows)
    print_means(rows)


def annotate(dataset: Path, seed: int, strategy: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Annotate scans one by one as a strategy says."""
    rng = random.Random(seed)
    scans = load_scans(dataset, require_labels=True)
    scans = sorted(rng.sample(scans, min(len(scans), options.num_scans or len(scans))), key=lambda scan: scan["name"])
    tested = {scan["name"] for scan in rng.sample(scans, len(scans) // 3)}
    by_name = {scan["name"]: scan for scan in scans}
    pool = sorted(set(by_name) - tested)
    run = options.output / dataset.name / f"seed_{seed}"
    source = write_scan_list(run / "scans", scans, load_class_names(dataset))
    by_chance = rng.sample(pool, len(pool))
    masks, rows, annotated = run / strategy, [], []
    for number in range(1, options.annotations + 1):
        name = next_scan(strategy, masks if annotated else source, pool, annotated, by_chance)
        annotated.append(name)
        if number == 1:
            first_masks(run, masks, source, by_name[name], options)
        else:
            drawn = run / f"drawn_{strategy}" / f"{name}_seg.nii.gz"
            drawn.parent.mkdir(exist_ok=True)
            shutil.copyfile(by_name[name]["label"], drawn)
            monai_fewshot.refine(masks, [drawn], minutes=options.round_minutes or None)
        dice = mean_dice(masks, [by_name[other] for other in sorted(tested)])
        rows.append(dict(zip(FIELDS, (dataset.name, seed, strategy, number, name, f"{dice:.4f}"), strict=True)))
        print(f"RESULT {rows[-1]}", flush=True)
    return rows


def next_scan(
    strategy: str, folder: Path, pool: Sequence[str], annotated: Sequence[str], by_chance: Sequence[str]
) -> str:
    """Choose the scan to annotate; without masks there is no quality to go by, and chance decides."""
    left = [name for name in by_chance if name not in annotated]
    if strategy == "suggested":
        wanted = [name for name in pool if name not in annotated]
        return monai_fewshot.suggest(folder, 1, 0, candidates=wanted, output=folder / "suggestions.csv")[0].scan
    if strategy == "random" or not annotated:
        return left[0]
    predicted: dict[str, list[float]] = {}
    for row in QUALITY_TABLE.read(folder / "quality.csv"):
        predicted.setdefault(row.scan, []).append(row.predicted_dice)
    return min(left, key=lambda name: statistics.mean(predicted.get(name, [1.0])))


def first_masks(run: Path, masks: Path, source: Path, scan: Scan, options: argparse.Namespace) -> None:
    """Segment from the first annotation; strategies that begin with the same scan share the training."""
    shared = run / f"first_{scan['name']}"
    example = [(scan["image"], scan["label"])]
    monai_fewshot.segment(source, example, shared, options.method, minutes=options.minutes or None)
    shutil.rmtree(masks, ignore_errors=True)
    shutil.copytree(shared, masks)


def mean_dice(masks: Path, scans: Sequence[Scan]) -> float:
    """Mean Dice over scans and the classes that their labels show."""
    load, values = LoadScand(), []
    for scan in scans:
        truth = convert_to_numpy(load({"image": scan["image"], "label": scan["label"]})["label"])
        found = load({"image": scan["image"], "label": str(masks / f"{scan['name']}_seg.nii.gz")})["label"]
        mask = convert_to_numpy(found)
        for number in np.unique(truth[truth > 0]):
            one, other = truth == number, mask == number
            values.append(2 * (one & other).sum() / (one.sum() + other.sum()))
    return float(np.mean(values))


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


def print_means(rows: Sequence[dict[str, Any]]) -> None:
    """Print the mean over seeds by data set, strategy and number of annotations."""
    keys = sorted({(row["dataset"], row["strategy"], row["annotations"]) for row in rows})
    for dataset, strategy, number in keys:
        values = [
            float(row["dice"])
            for row in rows
            if (row["dataset"], row["strategy"], row["annotations"]) == (dataset, strategy, number)
        ]
        mean = statistics.mean(values)
        print(f"{dataset} {strategy:16} {number} annotated: {100 * mean:.1f} % ({len(values)} seed(s))")


if __name__ == "__main__":
    main()
