# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""What each part of SSL-ALPNet contributes: one fold, several seeds, each part replaced or left out in turn.

python benchmarks/ablations.py --dataset_dir DATA [--fold 0] [--seeds 0 1 2] [--epochs 4]
"""

from __future__ import annotations

import argparse
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bundle_runs import commit, dice_by_class, train_and_evaluate

VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "all parts": ({}, {}),
    "random rectangles for superpixels": (
        {"pseudo_labels": {"_target_": "monai_fewshot.transforms.RandomRectangleLabelsd", "keys": "image"}},
        {},
    ),
    "class prototypes alone": ({"network_def::local_prototypes": False}, {"network_def::local_prototypes": False}),
    "no alignment": ({"network_def::align": False}, {}),
    "no intensity transform": ({"augmentation::gamma": "$None"}, {}),
    "no geometric transform": ({"augmentation::geometry": "$None"}, {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True, help="data set in the Decathlon layout")
    parser.add_argument("--output_dir", type=Path, default=Path("ablations_output"))
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time")
    arguments = parser.parse_args()

    def run(cell: tuple[str, int]) -> float:
        variant, seed = cell
        train, evaluate = VARIANTS[variant]
        budget = {"max_epochs": arguments.epochs, "seed": seed}
        shared = {"cache_dir": (arguments.output_dir / "cache").resolve()}
        folder = arguments.output_dir / f"{variant.replace(' ', '_')}_seed{seed}"
        results = train_and_evaluate(
            folder, arguments.dataset_dir, arguments.fold, arguments.threads, {**shared, **budget, **train}, evaluate
        )
        dice = dice_by_class(results, "alpnet")["mean"]
        print(f"{variant}, seed {seed}: {dice:.1f}", flush=True)
        return dice

    cells = [(variant, seed) for variant in VARIANTS for seed in arguments.seeds]
    with ThreadPoolExecutor(arguments.parallel) as pool:
        dice = dict(zip(cells, pool.map(run, cells), strict=True))
    print(f"\n{arguments.dataset_dir.name}, fold {arguments.fold}, {arguments.epochs} epochs, commit {commit()}\n")
    print("| variant | " + " | ".join(f"seed {seed}" for seed in arguments.seeds) + " | mean | sd |")
    print("|" + " --- |" * (len(arguments.seeds) + 3))
    for variant in VARIANTS:
        values = [dice[variant, seed] for seed in arguments.seeds]
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        cells_text = " | ".join(f"{value:.1f}" for value in values)
        print(f"| {variant} | {cells_text} | {statistics.fmean(values):.1f} | {spread:.1f} |")


if __name__ == "__main__":
    main()
