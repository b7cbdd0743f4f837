# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""What each part of SSL-ALPNet contributes: one fold, several seeds, each part replaced or left out in turn.

python benchmarks/ablations.py --dataset_dir DATA [--fold 0] [--seeds 0 1 2] [--epochs 4]
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from pathlib import Path
from typing import Any

from bundle_runs import BundleRun
from run_queue import RunQueue, percent

from monai_fewshot.apps.benchmark import code_version

VARIANTS: dict[str, dict[str, Any]] = {
    "all parts": {},
    "random rectangles for superpixels": {
        "pseudo_labels": {"_target_": "monai_fewshot.transforms.RandomRectangleLabelsd", "keys": "image"}
    },
    "class prototypes alone": {"network_def::local_prototypes": False},
    "no alignment": {"network_def::align": False},
    "no intensity transform": {"augmentation::gamma": "$None"},
    "no geometric transform": {"augmentation::geometry": "$None"},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True, help="data set in the Decathlon layout")
    parser.add_argument("--output_dir", type=Path, default=Path("ablations_output"))
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time")
    arguments = parser.parse_args()

    runs = {}
    for variant, train in VARIANTS.items():
        for seed in arguments.seeds:
            folder = arguments.output_dir / f"{variant.replace(' ', '_')}_seed{seed}"
            settings = {"max_epochs": arguments.epochs, "seed": seed, **train}
            runs[variant, seed] = BundleRun(folder, arguments.dataset_dir, arguments.fold, settings, {})
    queue = RunQueue(list(runs.values()), arguments.parallel, arguments.threads)
    queue.work()
    print(
        f"\n{arguments.dataset_dir.name}, fold {arguments.fold}, {arguments.epochs} epochs, commit {code_version()}\n"
    )
    print("| variant | " + " | ".join(f"seed {seed}" for seed in arguments.seeds) + " | mean | sd |")
    print("|" + " --- |" * (len(arguments.seeds) + 3))
    for variant in VARIANTS:
        names = [runs[variant, seed].folder.name for seed in arguments.seeds]
        values = [percent(queue.results[name]) if name in queue.results else math.nan for name in names]
        spread = statistics.stdev(values) if len(values) > 1 else math.nan
        print("| " + " | ".join([variant, *(f"{v:.1f}" for v in (*values, statistics.fmean(values), spread))]) + " |")
    return 1 if queue.failures else 0


if __name__ == "__main__":
    sys.exit(main())
