# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""What the parts of MaskSplit add: the ablation of its paper's Table 1 on images at hand.

    python benchmarks/masksplit_ablation.py PH2 KVASIR_SEG --results docs/results/masksplit.md

Training: the first half of the images of all sets, without annotations, on masks that configs/saliency.json finds in
them. Test: random episodes of the second half, each set a class. A cell is one training and its evaluation; the same
command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle_command import Cell
from image_cells import add_cell_arguments, copy_image, mean_and_spread, run_and_report

from monai_fewshot.apps.bundles import ChildProcesses, Step
from monai_fewshot.data import load_image_set

VARIANTS: dict[str, dict[str, Any]] = {
    "no split": {"split#prob": 0.0},
    "V, no augmentation": {"augmentation": None},
    "V, no slope": {"split#slope": 0.0},
    "H": {"split#mode": "horizontal"},
    "mixed": {"split#mode": "mixed"},
    "V, no alternation": {"split#alternate": False},
    "V, probability 0.3": {"split#prob": 0.3},
    "V (default)": {},
}
PUBLISHED = dict(zip(VARIANTS, (48.6, 47.8, 51.0, 52.3, 51.3, 52.7, 51.9, 53.0), strict=True))


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="image sets with masks; each is a class of the test")
    parser.add_argument("--output_dir", type=Path, default=Path("masksplit_output"))
    parser.add_argument("--seeds", type=int, default=3)
    add_cell_arguments(parser)
    return parser.parse_args(words)


def prepare(arguments: argparse.Namespace) -> tuple[Path, Path, Path]:
    """Halve the sets, and find masks in the training half; return folders of training, its masks, and the test."""
    data = arguments.output_dir.absolute() / "data"
    train, test, saliency = data / "train", data / "test", data / "saliency"
    if not (data / "complete").is_file():
        size = (2 * arguments.image_size,) * 2
        for folder in arguments.folders:
            for index, image in enumerate(load_image_set(folder, require_labels=True).images):
                if index % 2:
                    copy_image(image, test / folder.name, image["name"], size)
                else:
                    copy_image({"image": image["image"]}, train, f"{folder.name}_{image['name']}", size)
        (data / "complete").touch()
    if not (saliency / "masks").is_dir():
        step = Step("masksplit", ("saliency",), {"dataset_dir": train, "output_dir": saliency})
        with open(data / "saliency.log", "a") as log:
            if ChildProcesses().run(step.command(), cwd=step.folder, stdout=log, stderr=log, env=step.environment(1)):
                raise RuntimeError(f"No masks could be found, see {data / 'saliency.log'}")
    return train, saliency / "masks", test


def planned(arguments: argparse.Namespace, folders: tuple[Path, Path, Path]) -> dict[tuple[str, int], Cell]:
    """Cells by variant and seed, seed after seed."""
    train_dir, masks_dir, test_dir = folders
    cells = {}
    for seed in range(arguments.seeds):
        for variant, settings in VARIANTS.items():
            name = f"{variant}_seed{seed}".replace(" ", "_").replace(",", "").replace("(", "").replace(")", "")
            folder = arguments.output_dir.absolute() / name
            train = {
                "dataset_dir": train_dir,
                "masks_dir": masks_dir,
                "ckpt_dir": folder / "model",
                "resume": True,
                "epoch_length": 50,
                "max_epochs": arguments.iterations // 50,
                "val_interval": arguments.iterations // 50,
                "seed": seed,
                "image_size": [arguments.image_size] * 2,
                "encoder#channels": [16, 32, 64, 128],
                **settings,
            }
            evaluate = {
                "dataset_dir": test_dir,
                "checkpoint": folder / "model" / "model.pt",
                "output_dir": folder / "eval",
                "runs": 1,
                "episodes_per_run": arguments.episodes,
                "hd95": False,
            }
            steps = (Step("masksplit", ("train",), train), Step("masksplit", ("evaluate",), evaluate))
            cells[variant, seed] = Cell(folder, steps)
    return cells


def table(arguments: argparse.Namespace, cells: Mapping[tuple[str, int], Cell]) -> str:
    """Mean and standard deviation over seeds, by variant."""
    found = {key: results for key, cell in cells.items() if (results := cell.results()) is not None}
    classes = sorted({name for results in found.values() for name in results["by_class"]})
    header = ["variant", "seeds", "mIoU", *(f"IoU {name}" for name in classes), "Dice", "published mIoU, Pascal-5i"]
    lines = ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
    for variant in VARIANTS:
        mine = [results for (name, _), results in found.items() if name == variant]
        if mine:
            columns = [
                mean_and_spread([100 * results["overall"]["iou"] for results in mine]),
                *(mean_and_spread([100 * results["by_class"][name]["iou"] for results in mine]) for name in classes),
                mean_and_spread([100 * results["overall"]["dice"] for results in mine]),
            ]
            lines.append("| " + " | ".join([variant, str(len(mine)), *columns, str(PUBLISHED[variant])]) + " |")
    mean = statistics.fmean([results["minutes"] for results in found.values()]) if found else 0.0
    size = arguments.image_size
    return "\n".join(lines) + (
        f"\n\n{len(found)} of {len(cells)} trainings, {mean:.1f} min each on {arguments.threads} thread(s) of a CPU; "
        f"{size} x {size} pixels, {arguments.iterations} iterations of 8 episodes, {arguments.episodes} test episodes; "
        "± is the standard deviation over seeds."
    )


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(words)
    cells = planned(arguments, prepare(arguments))
    return run_and_report(arguments, list(cells.values()), lambda: table(arguments, cells), "masksplit")


if __name__ == "__main__":
    sys.exit(main())
