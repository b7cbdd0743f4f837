# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""What the parts of MaskSplit add: the ablation of its paper's Table 1 on images at hand.

    python benchmarks/masksplit_ablation.py PH2 KVASIR_SEG --results docs/results.md

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

from bundle_command import Cell, Step, replace_between, run_cells
from child_processes import ChildProcesses
from PIL import Image

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
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--episodes", type=int, default=500, help="of the evaluation")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, help="Markdown file with the marker lines")
    parser.add_argument("--report_only", action="store_true")
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
                    _copy(image, test / folder.name, image["name"], size)
                else:
                    _copy({"image": image["image"]}, train, f"{folder.name}_{image['name']}", size)
        (data / "complete").touch()
    if not (saliency / "masks").is_dir():
        step = Step("masksplit", ("saliency",), {"dataset_dir": train, "output_dir": saliency})
        with open(data / "saliency.log", "a") as log:
            if ChildProcesses().run(step.command(), cwd=step.folder, stdout=log, stderr=log, env=step.environment(1)):
                raise RuntimeError(f"No masks could be found, see {data / 'saliency.log'}")
    return train, saliency / "masks", test


def _copy(image: Mapping[str, Any], folder: Path, name: str, size: tuple[int, int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(image["image"]) as picture:
        picture.convert("RGB").resize(size, Image.Resampling.BILINEAR).save(folder / f"{name}.jpg", quality=95)
    if "label" in image:
        with Image.open(image["label"]) as picture:
            mask = picture.convert("L")
        threshold = image.get("mask_threshold", max(mask.tobytes()) / 2)
        mask = mask.point(lambda v: 255 * (v > threshold)).resize(size, Image.Resampling.NEAREST)
        mask.save(folder / f"{name}.png")


def planned(arguments: argparse.Namespace, folders: tuple[Path, Path, Path]) -> dict[tuple[str, int], Cell]:
    """Cells by variant and seed, seed after seed."""
    train_dir, masks_dir, test_dir = folders
    cells = {}
    for seed in range(arguments.seeds):
        for variant, settings in VARIANTS.items():
            name = f"{variant}_seed{seed}".replace(" ", "_").replace(",", "").replace("(", "").replace(")", "")
            folder = arguments.output_dir.absolute() / name
            size = {"image_size": [arguments.image_size] * 2, "encoder#channels": [16, 32, 64, 128]}
            train = {
                "dataset_dir": train_dir,
                "masks_dir": masks_dir,
                "ckpt_dir": folder / "model",
                "resume": True,
                "epoch_length": 50,
                "max_epochs": arguments.iterations // 50,
                "val_interval": arguments.iterations // 50,
                "seed": seed,
                **size,
                **settings,
            }
            evaluate = {
                "dataset_dir": test_dir,
                "checkpoint": folder / "model" / "model.pt",
                "output_dir": folder / "eval",
                "runs": 1,
                "episodes_per_run": arguments.episodes,
                "hd95": False,
                **size,
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
                _spread([100 * results["overall"]["iou"] for results in mine]),
                *(_spread([100 * results["by_class"][name]["iou"] for results in mine]) for name in classes),
                _spread([100 * results["overall"]["dice"] for results in mine]),
            ]
            lines.append("| " + " | ".join([variant, str(len(mine)), *columns, str(PUBLISHED[variant])]) + " |")
    mean = statistics.fmean([results["minutes"] for results in found.values()]) if found else 0.0
    size = arguments.image_size
    return "\n".join(lines) + (
        f"\n\n{len(found)} of {len(cells)} trainings, {mean:.1f} min each on {arguments.threads} thread(s) of a CPU; "
        f"{size} x {size} pixels, {arguments.iterations} iterations of 8 episodes, {arguments.episodes} test episodes; "
        "± is the standard deviation over seeds."
    )


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(words)
    cells = planned(arguments, prepare(arguments))

    def report() -> None:
        if arguments.results is not None:
            replace_between(arguments.results, "masksplit", table(arguments, cells))

    failures = {}
    if not arguments.report_only:
        failures = run_cells(list(cells.values()), arguments.parallel, arguments.threads, report)
    report()
    print(table(arguments, cells))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
