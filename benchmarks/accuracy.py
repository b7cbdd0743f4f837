# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Accuracy of SSL-ALPNet from random weights, under the protocol `alpnet` and on whole volumes.

    python benchmarks/accuracy.py --dataset_dir DATA [--folds 0 2] [--exclude_classes "liver,spleen"]

trains each fold with the bundle's defaults, evaluates it and prints a table in Markdown; with `--exclude_classes` (the
field's setting 2) the excluded classes are the ones tested. Runs go on where they were interrupted.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bundle_runs import commit, dice_by_class, hd95, train_and_evaluate

COLUMNS = [
    "data",
    "excluded",
    "fold",
    "Dice by class",
    "Dice",
    "HD95 mm",
    "whole Dice",
    "whole HD95 mm",
    "training min",
    "commit",
]


def row(name: str, excluded: str, fold: int, results: dict[str, Any]) -> str:
    dice = dice_by_class(results, "alpnet")
    mean = dice.pop("mean")
    cells = [
        name,
        excluded or "none",
        str(fold),
        ", ".join(f"{key} {value:.1f}" for key, value in dice.items()),
        f"**{mean:.1f}**",
        f"{hd95(results, 'alpnet'):.1f}",
        f"{dice_by_class(results, 'whole_volume')['mean']:.1f}",
        f"{hd95(results, 'whole_volume'):.1f}",
        f"{results['training_seconds'] / 60:.1f}",
        results.get("commit", ""),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True, help="data set in the Decathlon layout")
    parser.add_argument("--output_dir", type=Path, default=Path("accuracy_output"))
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--exclude_classes", default="", help="names, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    excluded = [name.strip() for name in arguments.exclude_classes.split(",") if name.strip()]
    train: dict[str, Any] = {"seed": arguments.seed, "cache_dir": (arguments.output_dir / "cache").resolve()}
    evaluate: dict[str, Any] = {}
    if excluded:
        train["exclude_classes"] = excluded
        evaluate["classes"] = excluded
    print(f"| {' | '.join(COLUMNS)} |")
    print("|" + " --- |" * len(COLUMNS))
    for fold in arguments.folds:
        name = "_".join([arguments.dataset_dir.name, *excluded, f"fold{fold}", f"seed{arguments.seed}"])
        folder = arguments.output_dir / name.replace(" ", "_")
        results = train_and_evaluate(folder, arguments.dataset_dir, fold, arguments.threads, train, evaluate)
        print(row(arguments.dataset_dir.name, ", ".join(excluded), fold, {"commit": commit(), **results}), flush=True)


if __name__ == "__main__":
    main()
