# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""What a surrogate task adds to few-shot segmentation of skin lesions, trained where no lesion is annotated.

    python benchmarks/surrogate_tasks.py --lesions PH2 --polyps KVASIR_SEG --results docs/results/surrogate_tasks.md

Base classes: phantom shapes (made on the spot) and polyps. Images without annotations: half of the lesion images,
whose masks are not read. Test: random episodes of the other half. The upper bound is the same network trained on
annotated lesions of the first half. A cell is one training and its evaluation; the same command goes on after an
interruption. Published figures (Feyjie et al., 2020) stand beside, of other training data and a pretrained encoder.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle_command import Cell
from image_cells import add_cell_arguments, copy_image, mean_and_spread, run_and_report

from monai_fewshot.apps.bundles import Step
from monai_fewshot.apps.phantom import make_phantom_shapes
from monai_fewshot.data import load_image_set

METHODS: dict[str, dict[str, Any]] = {
    "few-shot alone": {"configs": ("train", "few_shot")},
    "few-shot + denoising, 5": {"num_unlabeled": 5},
    "few-shot + denoising, 10": {"num_unlabeled": 10},
    "few-shot + denoising, 20": {"num_unlabeled": 20},
    "few-shot + inpainting, 5": {
        "num_unlabeled": 5,
        "task": "{'_target_': 'monai_fewshot.transforms.Inpainting'}",
    },
    "few-shot + local shuffling, 5": {
        "num_unlabeled": 5,
        "task": "{'_target_': 'monai_fewshot.transforms.LocalShuffling'}",
    },
    "upper bound, few-shot on lesions": {"configs": ("train", "few_shot"), "on_lesions": True},
}
FIVE_SHOT = ("few-shot alone", "few-shot + denoising, 10")
PUBLISHED = {
    (1, "few-shot alone"): 68.13,
    (1, "few-shot + denoising, 5"): 74.12,
    (1, "few-shot + denoising, 10"): 74.67,
    (1, "few-shot + denoising, 20"): 74.77,
    (1, "upper bound, few-shot on lesions"): 89.94,
    (5, "few-shot alone"): 71.15,
    (5, "few-shot + denoising, 10"): 75.54,
}


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lesions", type=Path, required=True, help="folder of lesion images and masks, such as PH2")
    parser.add_argument("--polyps", type=Path, required=True, help="folder of polyp images and masks")
    parser.add_argument("--output_dir", type=Path, default=Path("surrogate_output"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    add_cell_arguments(parser)
    return parser.parse_args(words)


def prepare(arguments: argparse.Namespace) -> dict[str, Path]:
    """Lay out the data: base classes as one folder a class, and the lesion images in two halves."""
    data = arguments.output_dir.absolute() / "data"
    folders = {name: data / name for name in ("base", "unlabeled", "annotated", "test")}
    if (data / "complete").is_file():
        return folders
    make_phantom_shapes(folders["base"], num_classes=20, num_images=10)
    size = (2 * arguments.image_size,) * 2
    polyps = load_image_set(arguments.polyps, require_labels=True)
    lesions = load_image_set(arguments.lesions, require_labels=True)
    for image in polyps.images:
        copy_image(image, folders["base"] / "polyp", image["name"], size)
    for index, image in enumerate(lesions.images):
        if index % 2:
            copy_image(image, folders["test"] / "lesion", image["name"], size)
        else:
            copy_image(image, folders["annotated"] / "lesion", image["name"], size)
            copy_image({"image": image["image"]}, folders["unlabeled"], image["name"], size)
    (data / "complete").touch()
    return folders


def planned(arguments: argparse.Namespace, folders: dict[str, Path]) -> dict[tuple[int, str, int], Cell]:
    """Cells by shots, method and seed, seed after seed."""
    cells = {}
    for seed in range(arguments.seeds):
        for method in arguments.methods:
            for shots in (1, 5) if method in FIVE_SHOT else (1,):
                cells[shots, method, seed] = _cell(arguments, folders, shots, method, seed)
    return cells


def _cell(arguments: argparse.Namespace, folders: dict[str, Path], shots: int, method: str, seed: int) -> Cell:
    settings = dict(METHODS[method])
    configs, on_lesions = settings.pop("configs", ("train",)), settings.pop("on_lesions", False)
    name = f"{method}_{shots}shot_seed{seed}".replace(" ", "_").replace(",", "").replace("+", "and")
    folder = arguments.output_dir.absolute() / name
    train = {
        "dataset_dir": folders["annotated" if on_lesions else "base"],
        "unlabeled_dir": folders["unlabeled"],
        "ckpt_dir": folder / "model",
        "resume": True,
        "epoch_length": 50,
        "max_epochs": arguments.iterations // 50,
        "val_interval": arguments.iterations // 50,
        **({"val_share": 0.1} if on_lesions else {}),
        "image_size": [arguments.image_size] * 2,
        "encoder#channels": [16, 32, 64, 128],
        "encoder#out_channels": 32,
        "shots": shots,
        "seed": seed,
        **settings,
    }
    evaluate = {
        "dataset_dir": folders["test"],
        "checkpoint": folder / "model" / "model.pt",
        "output_dir": folder / "eval",
        "runs": 1,
        "episodes_per_run": arguments.episodes,
        "hd95": False,
        "shots": shots,
    }
    steps = (
        Step("surrogate_fewshot", configs, train),
        Step("surrogate_fewshot", ("evaluate",), evaluate),
    )
    return Cell(folder, steps)


def table(arguments: argparse.Namespace, cells: dict[tuple[int, str, int], Cell]) -> str:
    """Mean and standard deviation over seeds, and the paired gain over few-shot alone."""
    dice: dict[tuple[int, str], dict[int, float]] = {}
    minutes: list[float] = []
    for (shots, method, seed), cell in cells.items():
        if (found := cell.results()) is not None:
            dice.setdefault((shots, method), {})[seed] = 100 * found["overall"]["dice"]
            minutes.append(found["minutes"])
    lines = [
        "| shots | method | seeds | Dice, lesions | gain over few-shot alone, same seed | published, PH2 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for shots, method in sorted(dice, key=lambda key: (key[0], list(METHODS).index(key[1]))):
        values, alone = dice[shots, method], dice.get((shots, "few-shot alone"), {})
        gains = [values[seed] - alone[seed] for seed in values if seed in alone]
        gain = "" if method == "few-shot alone" or not gains else mean_and_spread(gains, sign=True)
        published, figure = PUBLISHED.get((shots, method)), mean_and_spread(list(values.values()))
        lines.append(f"| {shots} | {method} | {len(values)} | {figure} | {gain} | {published or '-'} |")
    mean = statistics.fmean(minutes) if minutes else 0.0
    size = arguments.image_size
    return "\n".join(lines) + (
        f"\n\n{len(minutes)} of {len(cells)} trainings, {mean:.1f} min each on {arguments.threads} thread(s) of a CPU; "
        f"{size} x {size} pixels, {arguments.iterations} iterations of 4 episodes, {arguments.episodes} test episodes; "
        "± is the standard deviation over seeds."
    )


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(words)
    cells = planned(arguments, prepare(arguments))
    return run_and_report(arguments, list(cells.values()), lambda: table(arguments, cells), "surrogate")


if __name__ == "__main__":
    sys.exit(main())
