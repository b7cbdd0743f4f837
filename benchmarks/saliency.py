# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""How well masks found without annotations agree with true ones, step by step.

    python benchmarks/saliency.py PH2 KVASIR_SEG --results docs/results/masksplit.md

Mean IoU with the true masks of the spectral residual, the boundary prior, both fused, and of each round of refinement
by a network trained from scratch, with the settings of bundles/masksplit/configs/saliency.json. No mask is trained
on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import Dataset
from monai.transforms import Compose

from monai_fewshot.apps.benchmark import replace_between
from monai_fewshot.apps.bundles import bundle_folder
from monai_fewshot.data import SliceStack, image_reading, load_image_set, without_labels
from monai_fewshot.transforms import SaliencyLabelsd
from monai_fewshot.visualize import Panel, figure_to_png, overlay_figure

METHODS = {"spectral_residual": "spectral residual", "boundary": "boundary prior", "fused": "fused"}
PICTURED = 6


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="image sets with masks")
    parser.add_argument("--output_dir", type=Path, default=Path("saliency_output"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="Markdown file with the marker lines")
    return parser.parse_args(words)


def overlap(masks: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """IoU of each image."""
    both = (masks & truth).flatten(1).sum(1)
    either = (masks | truth).flatten(1).sum(1)
    return (both / either.clamp(min=1)).numpy()


def steps_of(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Masks and IoU of every step on one set."""
    image_set = load_image_set(folder, require_labels=True)
    parser = ConfigParser()
    parser.read_config(bundle_folder("masksplit") / "configs" / "saliency.json")
    parser.update(
        {
            "dataset_dir": str(folder),
            "output_dir": str(arguments.output_dir / folder.name),
            "rounds": arguments.rounds,
            "steps": arguments.steps,
            "seed": arguments.seed,
        }
    )
    torch.manual_seed(arguments.seed)
    size = parser.get_parsed_content("image_size")
    truth_set = Dataset(image_set.images, image_reading())
    truth = SliceStack.from_scans(truth_set, "label", size)
    found: dict[str, np.ndarray] = {}
    for method, name in METHODS.items():
        transform = Compose([image_reading(), SaliencyLabelsd("image", method=method)])
        data = Dataset(without_labels(image_set.images), transform)
        masks = SliceStack.from_scans(data, "pseudo_label", size).label
        found[name] = overlap(masks > 0, truth.label > 0)
    start = time.time()
    refined = parser.get_parsed_content("refinement").run()
    for number, masks in enumerate(refined[1:], 1):
        found[f"refined, round {number}"] = overlap(masks.cpu() > 0, truth.label > 0)
    _draw(truth, refined, arguments.output_dir / f"{folder.name}.png")
    return {"iou": found, "minutes": (time.time() - start) / 60, "images": len(image_set.images)}


def _draw(truth: SliceStack, refined: Sequence[torch.Tensor], path: Path) -> None:
    places = np.linspace(0, len(truth.image) - 1, PICTURED).astype(int)
    colors = {"fused": "#2f8fe0", "refined": "#e8553d"}
    panels = [
        Panel(
            truth.image[place].permute(1, 2, 0).numpy(),
            {
                "ground truth": truth.label[place, 0].numpy() > 0,
                "fused": refined[0][place, 0].cpu().numpy() > 0,
                "refined": refined[-1][place, 0].cpu().numpy() > 0,
            },
            "true, fused (blue), refined (red)",
            colors=colors,
        )
        for place in places
    ]
    path.write_bytes(figure_to_png(overlay_figure(panels, columns=PICTURED // 2)))


def table(results: dict[str, dict[str, Any]]) -> str:
    """Mean IoU, and the share of images below 0.5, by step and set."""
    names = list(next(iter(results.values()))["iou"])
    header = ["step", *(f"{folder}, {found['images']} images" for folder, found in results.items())]
    lines = ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
    for name in names:
        cells = [
            f"{100 * found['iou'][name].mean():.1f} ({100 * (found['iou'][name] < 0.5).mean():.0f} %)"
            for found in results.values()
        ]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    minutes = ", ".join(f"{found['minutes']:.0f}" for found in results.values())
    return "\n".join(lines) + (
        "\n\nMean IoU with the true masks in percent and, in brackets, the part of the images below 50. "
        f"Refinement took {minutes} minutes."
    )


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(words)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    text = table({folder.name: steps_of(folder, arguments) for folder in arguments.folders})
    print(text)
    if arguments.results is not None:
        replace_between(arguments.results, "saliency", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
