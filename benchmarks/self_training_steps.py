# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""How long a step of self-training takes, by normalization and precision, beside the default in float32.

    python benchmarks/self_training_steps.py                            # phantom, one thread
    python benchmarks/self_training_steps.py --dataset_dir CHAOS        # fold 0 of a data set

A step learns from annotated slices alone, or from unlabeled ones too. Seconds are the fastest of all steps of a cell,
of processor time on a CPU, so that other work on the machine counts little; cells take turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from step_timing import WARM_UP, synchronized

from monai_fewshot.apps.phantom import make_phantom_dataset

CONFIG = Path(__file__).parent.parent / "bundles" / "self_training" / "configs" / "train.json"
NORMS = {"groups of 8": ("group", {"num_groups": 8}), "instance": ("instance", {"affine": True}), "batch": "batch"}
DTYPES = ("float32", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, help="data set in the Decathlon layout; default: a new phantom")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a turn, after two to warm up")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.dataset_dir or Path(folder) / "phantom"
        if arguments.dataset_dir is None:
            make_phantom_dataset(data, num_volumes=6, size=(128, 128, 16))
        print(table(data, arguments.steps, arguments.turns, arguments.device))


def table(dataset_dir: Path, steps: int, turns: int, device: str) -> str:
    """Time all cells, and print them with their ratios to the first."""
    cells: dict[tuple[str, str, bool], float] = {}
    for _ in range(turns):
        for cell in product(NORMS, DTYPES, (False, True)):
            cells[cell] = min(cells.get(cell, float("inf")), fastest_step(dataset_dir, *cell, steps, device))
    lines = [
        "| normalization | precision | annotated slices alone, s | with unlabeled ones, s | ratios to the first row |",
        "| --- | --- | --- | --- | --- |",
    ]
    first = [cells[next(iter(NORMS)), DTYPES[0], both] for both in (False, True)]
    for norm, dtype in product(NORMS, DTYPES):
        taken = [cells[norm, dtype, both] for both in (False, True)]
        ratios = " and ".join(f"{own / default:.2f}" for own, default in zip(taken, first, strict=True))
        lines.append(f"| {norm} | {dtype} | {taken[0]:.3f} | {taken[1]:.3f} | {ratios} |")
    return "\n".join(lines)


def fastest_step(dataset_dir: Path, norm: str, dtype: str, taught: bool, steps: int, device: str) -> float:
    """Seconds of the fastest step of a training of the bundle, without its handlers."""
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {
            "dataset_dir": str(dataset_dir),
            "fold": 0,
            "ckpt_dir": folder,
            "device": f"$torch.device('{device}')",
            "dtype": f"$torch.{dtype}",
            "base#norm": NORMS[norm],
            "epoch_length": WARM_UP + steps,
            "max_epochs": 1,
            "train#trainer#train_handlers": ["@teacher"],
            "initialize": [],
        }
        workflow = ConfigWorkflow(str(CONFIG), workflow_type="train", logging_file=False, **settings)
        workflow.initialize()
        trainer = workflow.parser.get_parsed_content("train#trainer")
        trainer.progress.start = 0 if taught else None
        marks: list[float] = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: marks.append(clock(device)))
        if not taught:
            trainer.unlabeled = None
        trainer.run()
    return min(end - start for start, end in zip(marks[WARM_UP - 1 :], marks[WARM_UP:], strict=False))


def clock(device: str) -> float:
    return synchronized(device) if torch.device(device).type == "cuda" else time.process_time()


if __name__ == "__main__":
    main()
