# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Train and evaluate the SSL-ALPNet bundle through its command line, for the accuracy benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).parent.parent / "bundles" / "ssl_alpnet"


def run_bundle(config: str, overrides: Mapping[str, Any], folder: Path, threads: int) -> float:
    """Run one configuration of the bundle; return the seconds it took. Its output goes to CONFIG.log in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {key: value for key, value in overrides.items() if not isinstance(value, dict)}
    parts = {key: value for key, value in overrides.items() if isinstance(value, dict)}
    files = [str(BUNDLE / "configs" / f"{config}.json")]
    if parts:
        files.append(str(folder / f"{config}_override.json"))
        Path(files[-1]).write_text(json.dumps(parts, indent=4))
    arguments = [item for key, value in values.items() for item in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(files), "--bundle_root", str(BUNDLE)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    with open(folder / f"{config}.log", "w") as log:
        done = subprocess.run(command + arguments, stdout=log, stderr=subprocess.STDOUT, env=environment)
    if done.returncode:
        raise RuntimeError(f"{config} failed, see {folder / config}.log")
    return time.perf_counter() - start


def train_and_evaluate(
    folder: Path,
    dataset_dir: Path,
    fold: int,
    threads: int,
    train: Mapping[str, Any],
    evaluate: Mapping[str, Any],
) -> dict[str, Any]:
    """Train one fold and evaluate it; return what ``results.json`` holds, with the seconds of both.

    A run that is done is not repeated; one that was interrupted goes on.
    """
    summary_path = folder / "run.json"
    if summary_path.is_file():
        return json.loads(summary_path.read_text())
    common = {"dataset_dir": dataset_dir.resolve(), "fold": fold}
    checkpoints = folder.resolve() / "fold{fold}"
    training = {**common, "ckpt_dir": str(checkpoints).format(fold=fold), "resume": True, **train}
    training_seconds = run_bundle("train", training, folder, threads)
    evaluation = {
        **common,
        "checkpoint": str(checkpoints / "model.pt"),
        "output_dir": str(folder.resolve()),
        **evaluate,
    }
    evaluation_seconds = run_bundle("evaluate", evaluation, folder, threads)
    results = json.loads((folder / "results.json").read_text())
    results.update(training_seconds=training_seconds, evaluation_seconds=evaluation_seconds)
    summary_path.write_text(json.dumps(results, indent=1))
    return results


def dice_by_class(results: Mapping[str, Any], protocol: str) -> dict[str, float]:
    """Dice in percent of every class and their ``mean``, over the folds in ``results``."""
    return {row["class_name"]: 100 * row["dice"] for row in results["summary"] if _is_total(row, protocol)}


def hd95(results: Mapping[str, Any], protocol: str) -> float:
    """HD95 in mm, mean over classes."""
    rows = [row for row in results["summary"] if _is_total(row, protocol) and row["class_name"] == "mean"]
    return rows[0]["hd95_mm"]


def commit() -> str:
    """The commit of the code that runs, with a + where files differ from it."""
    done = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=BUNDLE, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _is_total(row: Mapping[str, Any], protocol: str) -> bool:
    return row["fold"] is None and row["protocol"] == protocol
