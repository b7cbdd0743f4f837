# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""What meta-learning adds to fine-tuning: trained on one kind of lesion, adapted to another by a few images.

    python benchmarks/meta_learning.py --lesions PH2 --polyps KVASIR_SEG --results docs/results/meta_learning.md

For each direction and seed: supervised training on all annotated images of one set; from its weights, meta-training by
each method; then, on the other set, adaptation to 5, 10 and 20 annotated images by the same few gradient steps, from
random weights, from the supervised and from the meta-learned ones. All see the same annotated images. A cell is one
training and its evaluations; the same command goes on after an interruption. Published figures (Khadka et al., 2022)
stand beside, of other and larger training sets.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bundle_command import Cell, overall
from image_cells import add_cell_arguments, copy_image, mean_and_spread, run_and_report

from monai_fewshot.apps.bundles import Step
from monai_fewshot.data import load_image_set

SHOTS = (5, 10, 20)
PLAIN_DICE = "$monai_fewshot.utils.define('monai.losses.DiceLoss', smooth_nr=1.0, smooth_dr=1.0)"
FIRST_WEIGHTS = {"lr": 0.0, "epoch_length": 1, "max_epochs": 1, "val_interval": 1}
"""A training that keeps the weights it begins with."""
METHODS: dict[str, dict[str, Any]] = {
    "fine-tuned, random weights": {"configs": ("train", "supervised"), "supervised": True, **FIRST_WEIGHTS},
    "fine-tuned, supervised weights": {"configs": ("train", "supervised"), "supervised": True},
    "first-order MAML": {"configs": ("train", "first_order")},
    "MAML": {"configs": ("train", "maml")},
    "iMAML": {},
    "iMAML, plain Dice": {"dice": PLAIN_DICE},
}
SUPERVISED = "fine-tuned, supervised weights"
PUBLISHED = {
    ("polyps to lesions", "MAML"): (75.62, 77.31, 79.60),
    ("polyps to lesions", "iMAML"): (77.39, 79.17, 83.26),
    ("lesions to polyps", "MAML"): (59.30, 61.72, 64.09),
    ("lesions to polyps", "iMAML"): (62.00, 65.10, 66.58),
}
"""Dice of the paper's Tables 2 (PH2 and Kvasir-SEG, to ISIC) and 6 (ISIC and PH2, to Kvasir-SEG), by shots."""


class Key(NamedTuple):
    """What tells cells apart."""

    direction: str
    method: str
    seed: int


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lesions", type=Path, required=True, help="folder of lesion images and masks, such as PH2")
    parser.add_argument("--polyps", type=Path, required=True, help="folder of polyp images and masks")
    parser.add_argument("--output_dir", type=Path, default=Path("meta_learning_output"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--meta_steps", type=int, default=60, help="a multiple of 20")
    parser.add_argument("--inner_steps", type=int, default=5)
    parser.add_argument("--inner_lr", type=float, default=0.1)
    parser.add_argument("--runs", type=int, default=1, help="of the evaluation, each with supports of its own")
    add_cell_arguments(parser)
    return parser.parse_args(words)


def prepare(arguments: argparse.Namespace) -> dict[str, tuple[Path, Path]]:
    """Copy both sets at twice the image size; return where to train and where to test, by direction."""
    data = arguments.output_dir.absolute() / "data"
    folders = {"lesions": data / "lesions", "polyps": data / "polyps"}
    if not (data / "complete").is_file():
        for name, source in (("lesions", arguments.lesions), ("polyps", arguments.polyps)):
            for image in load_image_set(source, require_labels=True).images:
                copy_image(image, folders[name] / "lesion", image["name"], (2 * arguments.image_size,) * 2)
        (data / "complete").touch()
    return {
        "polyps to lesions": (folders["polyps"], folders["lesions"]),
        "lesions to polyps": (folders["lesions"], folders["polyps"]),
    }


def planned(arguments: argparse.Namespace, folders: dict[str, tuple[Path, Path]]) -> dict[Key, Cell]:
    """Cells, seed after seed."""
    keys = [Key(d, m, seed) for seed in range(arguments.seeds) for d in folders for m in arguments.methods]
    return {key: _cell(arguments, folders[key.direction], key) for key in keys}


def _folder(arguments: argparse.Namespace, key: Key) -> Path:
    name = f"{key.direction}_{key.method}_seed{key.seed}".replace(" ", "_").replace(",", "")
    return arguments.output_dir.absolute() / name


def _cell(arguments: argparse.Namespace, folders: tuple[Path, Path], key: Key) -> Cell:
    settings = dict(METHODS[key.method])
    configs, supervised = settings.pop("configs", ("train",)), settings.pop("supervised", False)
    folder = _folder(arguments, key)
    train = {
        "dataset_dir": folders[0],
        "ckpt_dir": folder / "model",
        "resume": True,
        "image_size": [arguments.image_size] * 2,
        "base#channels": [8, 16, 32, 64],
        "inner_steps": arguments.inner_steps,
        "inner_lr": arguments.inner_lr,
        "seed": key.seed,
        "batch_size": 2,
        **(_supervised(arguments) if supervised else _meta(arguments, key)),
        **settings,
    }
    evaluations = [
        {
            "dataset_dir": folders[1],
            "checkpoint": folder / "model" / "model.pt",
            "output_dir": folder / name,
            "runs": arguments.runs,
            "shots": shots,
            "seed": key.seed,
        }
        for name, shots in zip(_evaluations(), SHOTS, strict=True)
    ]
    steps = [Step("meta_learning", configs, train)]
    steps += [Step("meta_learning", ("evaluate",), evaluate) for evaluate in evaluations]
    return Cell(folder, tuple(steps), _evaluations())


def _evaluations() -> tuple[str, ...]:
    return tuple(f"{shots}_shot" for shots in SHOTS)


def _supervised(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "shots": 1,
        "queries": 8,
        "lr": 0.003,
        "epoch_length": 50,
        "max_epochs": arguments.iterations // 50,
        "val_interval": arguments.iterations // 50,
    }


def _meta(arguments: argparse.Namespace, key: Key) -> dict[str, Any]:
    return {
        "weights": _folder(arguments, key._replace(method=SUPERVISED)) / "model" / "model.pt",
        "epoch_length": 20,
        "max_epochs": arguments.meta_steps // 20,
    }


def table(arguments: argparse.Namespace, cells: dict[Key, Cell]) -> str:
    """Mean and standard deviation over seeds, and the paired gain over fine-tuning from supervised weights."""
    found = {key: cell.results() for key, cell in cells.items()}
    done = {key: row for key, row in found.items() if row is not None}
    lines = [
        "| direction | method | seeds | Dice, 5 / 10 / 20 shots | HD95 (px), 5 / 10 / 20 shots "
        "| gain in Dice over supervised weights, 5 shots | published Dice |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for direction in dict.fromkeys(key.direction for key in cells):
        for method in arguments.methods:
            rows = {k.seed: row for k, row in done.items() if (k.direction, k.method) == (direction, method)}
            if not rows:
                continue
            dice = [[100 * overall(r, name)["dice"] for r in rows.values()] for name in _evaluations()]
            far = [[overall(r, name)["hd95"] for r in rows.values()] for name in _evaluations()]
            plain = {seed: done.get(Key(direction, SUPERVISED, seed)) for seed in rows}
            gains = [
                100 * (overall(rows[seed], "5_shot")["dice"] - overall(base, "5_shot")["dice"])
                for seed, base in plain.items()
                if base is not None
            ]
            gain = mean_and_spread(gains, sign=True) if gains and method != SUPERVISED else ""
            published = " / ".join(f"{value:.1f}" for value in PUBLISHED.get((direction, method), ())) or "-"
            figures = (" / ".join(map(mean_and_spread, values)) for values in (dice, far))
            lines.append(f"| {direction} | {method} | {len(rows)} | {' | '.join(figures)} | {gain} | {published} |")
    minutes = statistics.fmean(row["minutes"] for row in done.values()) if done else 0.0
    size = arguments.image_size
    return "\n".join(lines) + (
        f"\n\n{len(done)} of {len(cells)} cells, {minutes:.1f} min each on {arguments.threads} thread(s) of a CPU; "
        f"{size} x {size} pixels; {arguments.iterations} iterations of 16 images supervised, then "
        f"{arguments.meta_steps} meta-steps of two tasks of 5 shots and 5 queries; {arguments.inner_steps} inner steps "
        f"of SGD with lr {arguments.inner_lr:g}, in training and test; iMAML with lambda 2 and 5 steps of conjugate "
        f"gradients; {arguments.runs} draws of annotated images a "
        "seed, all others are segmented; ± is the standard deviation over seeds."
    )


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(words)
    cells = planned(arguments, prepare(arguments))
    first = [cell for key, cell in cells.items() if key.method == SUPERVISED]
    rest = [cell for key, cell in cells.items() if key.method != SUPERVISED]
    codes = [
        run_and_report(arguments, group, lambda: table(arguments, cells), "meta_learning") for group in (first, rest)
    ]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
