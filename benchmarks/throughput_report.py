# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Tables and plots of throughput.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

TRAINING = "encoder|batch|episodes/s|plain episodes/s|ratio|making|plain making|memory GB|of peak|min for 100,000"

IMAGE_METHODS = "method|batch|image|episodes/s|plain episodes/s|ratio|making|plain making"


def table(header: str, rows: Iterable[Iterable[str]]) -> str:
    columns = header.split("|")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(result: Mapping[str, Any]) -> str:
    """Return all tables in Markdown."""
    evaluation, labeling = result["evaluation"], result["labeling"]
    classes = {int(n): seconds for n, seconds in evaluation["by_classes"].items()}
    most = max(classes)
    ratio = evaluation["plain_seconds"] / evaluation["seconds"]
    slices, plain_s = evaluation["slices"], evaluation["plain_seconds"]
    fast, slow = labeling["ours_slices_per_s"], labeling["plain_slices_per_s"]
    rows = [
        ["evaluation, slices/s", f"{evaluation['slices_per_s']:.2f}", f"{slices / plain_s:.2f}", f"{ratio:.1f}"],
        [f"evaluation, {most} classes against 1", f"{classes[most] / classes[1]:.2f} times", f"{most} times", ""],
        ["superpixels, slices/s", f"{fast:.1f}", f"{slow:.1f}", f"{fast / slow:.1f}"],
    ]
    return "\n\n".join(
        [
            f"{result['hardware']}, torch {result['torch']}, {result['settings']['dtype']}; a large matrix product: "
            f"{result['peak_operations_per_s'] / 1e12:.3f} Tflop/s",
            table(TRAINING, map_training(result)),
            table("what|ours|plain|ratio", rows),
            "Methods for images:",
            table(IMAGE_METHODS, map(map_image_method, result["image_methods"])),
        ]
    )


def map_training(result: Mapping[str, Any]) -> list[list[str]]:
    plain = {cell["encoder"]: cell for cell in result["plain_training"]}
    rows = []
    for cell in result["training"]:
        name = [cell["encoder"], str(cell["batch_size"])]
        if "error" in cell:
            rows.append([*name, cell["error"], *[""] * 7])
            continue
        slow = plain[cell["encoder"]]
        rate = cell["episodes_per_s"]
        rows.append(
            [
                *name,
                f"{rate:.2f}",
                f"{slow['episodes_per_s']:.2f}",
                f"{rate / slow['episodes_per_s']:.1f}",
                f"{100 * cell['making_share']:.1f} %",
                f"{100 * slow['making_share']:.1f} %",
                f"{cell['peak_bytes'] / 1e9:.2f}",
                f"{100 * cell['operations_per_s'] / result['peak_operations_per_s']:.0f} %",
                f"{1e5 / rate / 60:.0f}",
            ]
        )
    return rows


def map_image_method(cell: Mapping[str, Any]) -> list[str]:
    ours, plain = cell["ours"], cell["plain"]
    return [
        cell["method"],
        str(cell["batch_size"]),
        f"{cell['image_size']} x {cell['image_size']}",
        f"{ours['episodes_per_s']:.2f}",
        f"{plain['episodes_per_s']:.2f}",
        f"{ours['episodes_per_s'] / plain['episodes_per_s']:.1f}",
        f"{100 * ours['making_share']:.1f} %",
        f"{100 * plain['making_share']:.1f} %",
    ]


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw how cost grows with batch, image size, slices and classes."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    batch, size, slices, classes = figure.subplots(2, 2).flat
    for encoder in dict.fromkeys(cell["encoder"] for cell in result["training"]):
        cells = [c for c in result["training"] if c["encoder"] == encoder and "error" not in c]
        batch.plot([c["batch_size"] for c in cells], [c["step_s"] for c in cells], "o-", label=encoder)
    for cell in result["plain_training"]:
        batch.axhline(cell["step_s"], linestyle=":", label=f"{cell['encoder']}, plain, one episode", color="gray")
    batch.set(xlabel="episodes in a batch", ylabel="seconds a step", title="batch")
    batch.legend()
    cells = [c for c in result["by_image_size"] if "error" not in c]
    size.plot([c["image_size"] for c in cells], [c["step_s"] / c["batch_size"] for c in cells], "o-")
    size.set(xlabel="pixels along a side", ylabel="seconds an episode", title="image size")
    for axes, name in ((slices, "slices"), (classes, "classes")):
        points = {int(n): seconds for n, seconds in result["evaluation"][f"by_{name}"].items()}
        axes.plot(list(points), list(points.values()), "o-")
        axes.set(xlabel=f"{name} segmented", ylabel="seconds a scan", title=f"evaluation by {name}")
    for axes in (batch, size, slices, classes):
        axes.set_ylim(0, 1.1 * axes.dataLim.y1)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
