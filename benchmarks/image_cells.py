# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks on 2D images share: copies of images, cells to a table, figures with their spread."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle_command import Cell, run_cells
from PIL import Image

from monai_fewshot.apps.benchmark import replace_between


def add_cell_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every table of trainings."""
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--episodes", type=int, default=500, help="of the evaluation")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, help="Markdown file with the marker lines")
    parser.add_argument("--report_only", action="store_true")


def copy_image(image: Mapping[str, Any], folder: Path, name: str, size: tuple[int, int]) -> None:
    """Write an image as NAME.jpg and its mask, if it has one, as NAME.png of two values, both in a size."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(image["image"]) as picture:
        picture.convert("RGB").resize(size, Image.Resampling.BILINEAR).save(folder / f"{name}.jpg", quality=95)
    if "label" in image:
        with Image.open(image["label"]) as picture:
            mask = picture.convert("L")
        threshold = image.get("mask_threshold", max(mask.tobytes()) / 2)
        mask = mask.point(lambda v: 255 * (v > threshold)).resize(size, Image.Resampling.NEAREST)
        mask.save(folder / f"{name}.png")


def mean_and_spread(values: Sequence[float], sign: bool = False) -> str:
    """Mean, and standard deviation where there are several."""
    mean = f"{statistics.fmean(values):{'+' if sign else ''}.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def run_and_report(arguments: argparse.Namespace, cells: Sequence[Cell], table: Callable[[], str], marker: str) -> int:
    """Run what is not done, keep the table in the results file up to date, print it, and return the exit code."""

    def report() -> None:
        if arguments.results is not None:
            replace_between(arguments.results, marker, table())

    report()
    failures = {}
    if not arguments.report_only:
        failures = run_cells(cells, arguments.parallel, arguments.threads, report)
    report()
    print(table())
    return 1 if failures else 0
