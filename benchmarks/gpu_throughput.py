# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""How fast a GPU trains and evaluates SSL-ALPNet, and what bfloat16 costs in Dice; for gpu_check.py.

Training steps and the peak of arithmetic are those of throughput.py, without the plain way; a fold is evaluated as in
evaluation_speed.py, with random weights. For Dice, the bundle is trained on the fold with its defaults in either
precision, and each network evaluated in both.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from evaluation_speed import PROTOCOL, clock, load_episodes, make_network
from logged_command import run_logged
from throughput import in_own_process, peak_arithmetic, slice_stack, training_cell

from monai_fewshot.apps.benchmark import markdown_table
from monai_fewshot.apps.bundles import ChildProcesses, Step
from monai_fewshot.apps.phantom import make_phantom_dataset
from monai_fewshot.data import load_class_names, load_folds
from monai_fewshot.inferers import FewShotVolumeInferer
from monai_fewshot.networks import prepare_network

ENCODERS, BATCHES = ("unet", "resnet101"), (4, 16, 64)
EVALUATED_ENCODER = ENCODERS[1]
SIZE, FOLD, STEPS, EVALUATION_BATCH = 256, 0, 10, 16
DTYPES = ("float32", "bfloat16")


def throughput(dataset_dir: Path | None, folder: Path) -> str:
    """Measure on a data set, or else on a phantom, and return tables in Markdown; logs go to a folder."""
    data = dataset_dir or make_phantom_dataset(folder / "phantom", 10, (SIZE, SIZE, 36))
    name = "a phantom" if dataset_dir is None else data.resolve().name
    peak = peak_arithmetic("cuda", torch.bfloat16)
    seconds = ", ".join(f"{fold_seconds(data, dtype):.1f} s in {dtype}" for dtype in DTYPES)
    header = ["encoder", "batch", "episodes/s", "share of peak", "making", "memory GB", "minutes for 100,000"]
    return "\n\n".join(
        [
            f"### Throughput\n\nTraining at {SIZE} px in bfloat16; the peak is {peak / 1e12:.0f} Tflop/s:",
            markdown_table(header, training_rows(data, peak)),
            f"Evaluation of fold {FOLD} of {name}, {EVALUATED_ENCODER} at {SIZE} px, scans in memory: {seconds}.",
            f"SSL-ALPNet trained with its defaults on fold {FOLD} of {name}, and evaluated:",
            markdown_table(["trained in", "evaluated in", "Dice", "evaluation"], dice_rows(data, folder)),
        ]
    )


def training_rows(dataset_dir: Path, peak: float) -> Iterator[list[str]]:
    settings = {
        "threads": torch.get_num_threads(),
        "device": "cuda",
        "dtype": "bfloat16",
        "channels_last": None,
        "compile": None,
        "steps": STEPS,
    }
    stack = slice_stack(dataset_dir, FOLD, 4, SIZE, "cpu")
    for encoder in ENCODERS:
        for batch in BATCHES:
            yield training_row(in_own_process(training_cell, settings, stack, encoder, batch), peak)


def training_row(cell: Mapping[str, Any], peak: float) -> list[str]:
    name = [cell["encoder"], str(cell["batch_size"])]
    if "error" in cell:
        return [*name, cell["error"], *[""] * 4]
    operations = sum(part["operations"] for part in cell["parts"].values())
    return [
        *name,
        f"{cell['episodes_per_s']:.1f}",
        f"{100 * operations / cell['step_s'] / peak:.0f} %",
        f"{100 * cell['making_share']:.1f} %",
        f"{cell['peak_bytes'] / 1e9:.2f}",
        f"{1e5 / cell['episodes_per_s'] / 60:.0f}",
    ]


def fold_seconds(dataset_dir: Path, dtype: str, device: str = "cuda") -> float:
    """Seconds that the queries of a fold take, the support encoded once, without reading and scoring."""
    queries = len(load_folds(dataset_dir)[FOLD].query)
    episodes, _ = load_episodes(dataset_dir, FOLD, queries)
    network = prepare_network(make_network(EVALUATED_ENCODER, episodes[0], (SIZE, SIZE), device), device, compile=False)
    classes = len(load_class_names(dataset_dir))
    seconds = math.nan
    for _ in range(2):  # the first time, libraries load and choose their kernels
        inferer = FewShotVolumeInferer(PROTOCOL, classes, (SIZE, SIZE), EVALUATION_BATCH, dtype=getattr(torch, dtype))
        started = clock(device)[0]
        for episode in episodes:
            query, label = (episode[key][None].to(device) for key in ("image", "label"))
            support = [episode[f"support_{key}"][None].to(device) for key in ("image", "label")]
            inferer(query, network, *support, label)
        seconds = clock(device)[0] - started
    return seconds


def dice_rows(dataset_dir: Path, folder: Path) -> Iterator[list[str]]:
    """Train the bundle in each precision, and evaluate both networks in each."""
    processes, threads = ChildProcesses(), os.cpu_count() or 1
    common = {"dataset_dir": dataset_dir.resolve(), "fold": FOLD}

    def bundle_run(config: str, log: str, **settings: Any) -> float:
        step = Step("ssl_alpnet", (config,), {**common, **settings})
        return run_logged(step.command(), step.folder, folder / f"{log}.log", threads, processes)

    for trained in DTYPES:
        model = folder / trained
        try:
            bundle_run("train", f"train_{trained}", ckpt_dir=model, cache_dir=folder, dtype=f"$torch.{trained}")
        except RuntimeError as error:
            yield [trained, "", f"failed: {error}", ""]
            continue
        for evaluated in DTYPES:
            output = model / f"eval_{evaluated}"
            places = {"checkpoint": model / "model.pt", "output_dir": output, "dtype": f"$torch.{evaluated}"}
            try:
                seconds = bundle_run("evaluate", f"evaluate_{trained}_{evaluated}", **places)
            except RuntimeError as error:
                yield [trained, evaluated, f"failed: {error}", ""]
                continue
            yield [trained, evaluated, overall_dice(output / "results.json"), f"{seconds:.0f} s"]


def overall_dice(results: Path) -> str:
    """Dice over all classes and queries, in percent, under each protocol."""
    summary = json.loads(results.read_text())["summary"]
    rows = [row for row in summary if row["fold"] is None and row["class_number"] is None]
    return ", ".join(f"{100 * row['dice']:.2f} ({row['protocol']})" for row in rows)
