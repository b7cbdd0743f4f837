# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Tables of meta_steps.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from throughput_report import table

FIXED_TASKS, FIXED_STEPS, CLAIMED_TASKS = 4, 4, 8
"""Tasks where inner steps vary, and inner steps where tasks vary; tasks of the claim on speed."""
VARIANTS, COMPARED = ("implicit", "vectorized", "first_order", "plain"), ("vectorized", "plain")
ROWS = (
    "inner steps|tasks|iMAML /s|MAML /s|first order /s|plain MAML /s|MAML to plain|"
    "iMAML MB|MAML MB|first order MB|plain MAML MB|difference"
)
SIZES = "image|shots|channels|MAML /s|plain MAML /s|ratio|convolutions, of MAML|of plain MAML"


def row_cells(row: Mapping[str, Any]) -> list[str]:
    seconds = row["seconds"]
    return [
        str(row["steps"]),
        str(row["tasks"]),
        *(f"{1 / seconds[name]:.3g}" for name in VARIANTS),
        f"{seconds['plain'] / seconds['vectorized']:.2f}",
        *(f"{row['bytes'][name] / 1e6:.0f}" for name in VARIANTS),
        f"{row['difference']:.0e}",
    ]


def size_cells(row: Mapping[str, Any]) -> list[str]:
    ours, plain = (row["seconds"][name] for name in COMPARED)
    return [
        f"{row['size']} x {row['size']}",
        str(row["shots"]),
        f"{row['channels'][0]} to {row['channels'][-1]}",
        f"{1 / ours:.3g}",
        f"{1 / plain:.3g}",
        f"{plain / ours:.2f}",
        *(f"{100 * row['convolutions'][name]:.0f} %" for name in COMPARED),
    ]


def claims(rows: Sequence[Mapping[str, Any]]) -> str:
    """Ratios within this run, where it has what they compare."""
    lines = []
    by_steps = sorted((row for row in rows if row["tasks"] == FIXED_TASKS), key=lambda row: row["steps"])
    if len(by_steps) > 1:
        few, many = by_steps[0], by_steps[-1]
        growth = {name: many["bytes"][name] / few["bytes"][name] for name in ("implicit", "vectorized")}
        between = f"{many['steps']} inner steps over that at {few['steps']}"
        lines.append(
            f"- Memory at {between}: iMAML {growth['implicit']:.2f} (mark: 0.9 to 1.1), MAML {growth['vectorized']:.1f}"
        )
    for row in rows:
        if (row["tasks"], row["steps"]) == (CLAIMED_TASKS, FIXED_STEPS):
            ratio = row["seconds"]["plain"] / row["seconds"]["vectorized"]
            lines.append(f"- Vectorized MAML over the plain loop at {CLAIMED_TASKS} tasks: {ratio:.2f} times (mark: 2)")
    return "\n".join(lines)


def report(setting: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], sizes: Sequence[Mapping[str, Any]]) -> str:
    """Return tables and ratios in Markdown."""
    clock = " in processor time" if setting["processor_time"] else ""
    size, version = setting["image_size"], torch.__version__.split("+")[0]
    return "\n\n".join(
        [
            f"{size} x {size} pixels, {setting['shots']} shots, {setting['queries']} queries, float32, "
            f"{setting['device']}, threads: {setting['threads']}, torch {version}, fastest of {setting['repeats']}"
            f"{clock}; /s is meta-steps a second, MB the peak of memory beyond weights and data:",
            table(ROWS, map(row_cells, rows)),
            claims(rows),
            f"Vectorized MAML beside the plain loop at {CLAIMED_TASKS} tasks and {FIXED_STEPS} inner steps, by size, "
            "with the share of convolutions in a profiled meta-step of one inner step:",
            table(SIZES, map(size_cells, sizes)),
        ]
    )
