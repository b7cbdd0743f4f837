# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Tables and plots of throughput.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from image_throughput import METHOD_BATCH
from matplotlib.figure import Figure

TRAINING = (
    "threads|precision|encoder|batch|episodes/s|plain episodes/s|ratio|plain waits|network|heads and loss|making|"
    "memory GB|min for 100,000"
)
EVALUATION = "threads|precision|slices/s|plain slices/s|ratio|most classes against 1"
IMAGE_METHODS = "threads|precision|method|episodes/s|plain episodes/s|ratio|making|plain waits"


def table(header: str, rows: Iterable[Iterable[str]]) -> str:
    columns = header.split("|")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(result: Mapping[str, Any]) -> str:
    """Return all tables in Markdown."""
    runs, labeling = result["runs"], result["labeling"]
    fast, slow = labeling["ours_slices_per_s"], labeling["plain_slices_per_s"]
    peaks = [f"{p['peak_operations_per_s'] / 1e12:.3f} ({p['threads']}, {p['dtype']})" for p in runs]
    return "\n\n".join(
        [
            f"{result['hardware']}, torch {result['torch']}; peak in Tflop/s (threads, precision): {', '.join(peaks)}",
            table(TRAINING, [row for run in runs for row in training_rows(run)]),
            table(EVALUATION, map(evaluation_row, runs)),
            f"Superpixels: {fast:.1f} slices/s, in one process {slow:.1f}, ratio {fast / slow:.1f}",
            f"Methods for images, batches of {METHOD_BATCH}:",
            table(IMAGE_METHODS, [row for run in runs for row in image_method_rows(run)]),
        ]
    )


def compared(ours: float, plain: float) -> list[str]:
    return [f"{ours:.2f}", f"{plain:.2f}", f"{ours / plain:.2f}"]


def training_rows(run: Mapping[str, Any]) -> Iterator[list[str]]:
    for cell in run["training"]:
        name = [str(run["threads"]), run["dtype"], cell["encoder"], str(cell["batch_size"])]
        if "error" in cell:
            yield [*name, cell["error"], *[""] * 8]
            continue
        plain, rate = run["plain"]["training"][cell["encoder"]], cell["episodes_per_s"]
        yield [
            *name,
            *compared(rate, plain["episodes_per_s"]),
            f"{100 * plain['making_share']:.1f} %",
            *(
                f"{100 * part['seconds'] / cell['step_s']:.0f} % at "
                f"{100 * part['operations'] / part['seconds'] / run['peak_operations_per_s']:.0f} %"
                for part in cell["parts"].values()
            ),
            f"{cell['peak_bytes'] / 1e9:.2f}",
            f"{1e5 / rate / 60:.0f}",
        ]


def evaluation_row(run: Mapping[str, Any]) -> list[str]:
    cell = run["evaluation"]
    classes = {int(n): seconds for n, seconds in cell["by_classes"].items()}
    rates = (cell["slices"] / seconds for seconds in (cell["seconds"], run["plain"]["evaluation_s"]))
    return [str(run["threads"]), run["dtype"], *compared(*rates), f"{classes[max(classes)] / classes[1]:.2f} times"]


def image_method_rows(run: Mapping[str, Any]) -> Iterator[list[str]]:
    for method, cell in run["image_methods"].items():
        plain, making = run["plain"]["image_methods"].get(method), f"{100 * cell['making_share']:.1f} %"
        rates = [f"{cell['episodes_per_s']:.2f}", "", ""]
        if plain is not None:
            rates = compared(cell["episodes_per_s"], plain["episodes_per_s"])
        waits = "" if plain is None else f"{100 * plain['making_share']:.1f} %"
        yield [str(run["threads"]), run["dtype"], method, *rates, making, waits]


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw how cost grows with batch, image size, slices and classes, the last two in the last run."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    batch, size, slices, classes = figure.subplots(2, 2).flat
    for run in result["runs"]:
        cells = [c for c in run["training"] if "error" not in c]
        for encoder in dict.fromkeys(cell["encoder"] for cell in cells):
            points = [(c["batch_size"], c["step_s"]) for c in cells if c["encoder"] == encoder]
            label = f"{encoder}, {run['dtype']}, {run['threads']} thread(s)"
            batch.plot(*zip(*points, strict=True), "o-", label=label)
    batch.set(xlabel="episodes in a batch", ylabel="seconds a step", title="batch")
    batch.legend()
    cells = [c for c in result["by_image_size"] if "error" not in c]
    size.plot([c["image_size"] for c in cells], [c["step_s"] / c["batch_size"] for c in cells], "o-")
    size.set(xlabel="pixels along a side", ylabel="seconds an episode", title="image size")
    for axes, name in ((slices, "slices"), (classes, "classes")):
        seconds = result["runs"][-1]["evaluation"][f"by_{name}"]
        axes.plot([int(n) for n in seconds], list(seconds.values()), "o-")
        axes.set(xlabel=f"{name} segmented", ylabel="seconds a scan", title=f"evaluation by {name}")
    for axes in (batch, size, slices, classes):
        axes.set_ylim(0, 1.1 * axes.dataLim.y1)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
