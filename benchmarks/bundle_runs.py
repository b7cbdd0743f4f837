# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Train and evaluate the SSL-ALPNet bundle through its command line, for the accuracy benchmarks.

A run has a folder of its own, whose files make it resumable: ``.lock`` is held while anyone works in the folder,
``progress.json`` tells how far it came and with which settings, ``run.json`` holds the results of a finished run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_fewshot.apps.benchmark import code_version, machine
from monai_fewshot.apps.bundles import ChildProcesses, bundle_folder, locked_folder
from monai_fewshot.utils import write_atomically

BUNDLE = bundle_folder("ssl_alpnet")


@dataclass(frozen=True)
class BundleRun:
    """One training of one fold and its evaluation.

    Attributes:
        folder: what belongs to the run; beside it lies the ``cache`` of pseudo-labels that the runs share.
        dataset_dir: data set in the Decathlon layout.
        fold: number of the fold.
        train: values of the bundle's training configuration that differ from its own.
        evaluate: those of its evaluation.
    """

    folder: Path
    dataset_dir: Path
    fold: int
    train: Mapping[str, Any]
    evaluate: Mapping[str, Any]

    @property
    def overrides(self) -> dict[str, Any]:
        """What makes the run different from others in the same folder, as JSON holds it."""
        return json.loads(json.dumps({"train": dict(self.train), "evaluate": dict(self.evaluate)}))

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder.resolve() / f"fold{self.fold}"

    def results(self) -> dict[str, Any] | None:
        """Results of the finished run, None of an unfinished one.

        Raises:
            ValueError: where the folder's run was made with other settings.
        """
        return self._read("run.json")

    def progress(self) -> dict[str, Any]:
        """How far the run came: ``attempts`` at the training, whether it is ``trained``, and its ``commit``.

        Raises:
            ValueError: where the folder's run was begun with other settings.
        """
        return self._read("progress.json") or {
            "attempts": [],
            "trained": False,
            "commit": code_version(),
            **self.overrides,
        }

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name
        if not path.is_file():
            return None
        content = json.loads(path.read_text())
        made_with = {key: content.get(key, value) for key, value in self.overrides.items()}
        if made_with != self.overrides:
            raise ValueError(f"{path} was made with {made_with}, asked is {self.overrides}: choose another output_dir.")
        return content


def train_and_evaluate(run: BundleRun, threads: int, processes: ChildProcesses) -> dict[str, Any]:
    """Train one fold and evaluate it.

    A run that is done is not repeated, an interrupted training goes on, an interrupted evaluation is repeated.

    Returns:
        What ``results.json`` holds, the seconds of both, the commit and the settings.

    Raises:
        RuntimeError: where the training or evaluation fails, or another process works on this run.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with locked_folder(run.folder) as lock:
        results = run.results()
        if results is not None:
            return results
        progress = run.progress()
        if not progress["trained"]:
            _train(run, progress, threads, processes, lock)
        overrides = {"checkpoint": run.checkpoints / "model.pt", "output_dir": run.folder.resolve(), **run.evaluate}
        seconds = _run_bundle("evaluate", run, overrides, threads, processes, lock)
        results = json.loads((run.folder / "results.json").read_text())
        results.update(training_seconds=sum(attempt["seconds"] for attempt in progress["attempts"]))
        results.update(evaluation_seconds=seconds, commit=progress["commit"], machine=machine(), **run.overrides)
        write_atomically(run.folder / "run.json", json.dumps(results, indent=1))
        return results


def summary(results: Mapping[str, Any], protocol: str) -> dict[str, dict[str, Any]]:
    """Scores of every class and their ``mean`` over the folds in the results, by name of the class."""
    rows = [row for row in results["summary"] if row["fold"] is None and row["protocol"] == protocol]
    return {row["class_name"]: row for row in rows}


def bundle_command(config: str, overrides: Mapping[str, Any], folder: Path) -> list[str]:
    """Command that runs one configuration of the bundle; overrides that are dictionaries go through a file."""
    files = [str(BUNDLE / "configs" / f"{config}.json")]
    parts = {key: value for key, value in overrides.items() if isinstance(value, dict)}
    if parts:
        files.append(str(write_atomically(folder / f"{config}_override.json", json.dumps(parts, indent=4))))
    values = {"config_file": files, "bundle_root": BUNDLE, **{k: v for k, v in overrides.items() if k not in parts}}
    words = [word for key, value in values.items() for word in (f"--{key}", str(value))]
    return [sys.executable, "-m", "monai.bundle", "run", *words]


def _train(run: BundleRun, progress: dict[str, Any], threads: int, processes: ChildProcesses, lock: int) -> None:
    """Begin or continue the training; its time counts up to the last checkpoint of an attempt that was cut off."""
    attempts = progress["attempts"]
    if attempts and attempts[-1]["seconds"] == 0:
        saved = [path.stat().st_mtime for path in run.checkpoints.glob("*.pt")]
        attempts[-1]["seconds"] = max(0.0, max(saved, default=0.0) - attempts[-1]["started"])
    attempts.append({"started": time.time(), "seconds": 0.0})
    write_atomically(run.folder / "progress.json", json.dumps(progress, indent=1))
    overrides = {
        "ckpt_dir": run.checkpoints,
        "cache_dir": run.folder.resolve().parent / "cache",
        "resume": True,
        **run.train,
    }
    attempts[-1]["seconds"] = _run_bundle("train", run, overrides, threads, processes, lock)
    progress["trained"] = True
    write_atomically(run.folder / "progress.json", json.dumps(progress, indent=1))


def _run_bundle(
    config: str, run: BundleRun, overrides: Mapping[str, Any], threads: int, processes: ChildProcesses, lock: int
) -> float:
    """Run one configuration, its output added to CONFIG.log in the folder; return the seconds it took."""
    common = {"dataset_dir": run.dataset_dir.resolve(), "fold": run.fold}
    command = bundle_command(config, {**common, **overrides}, run.folder)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    log_path = run.folder / f"{config}.log"
    start = time.perf_counter()
    with open(log_path, "a") as log:
        code = processes.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, pass_fds=[lock])
    if code:
        last = log_path.read_text(errors="replace").strip().rpartition("\n")[2]
        raise RuntimeError(f"{config} ended with code {code}, see {log_path}: {last}")
    return time.perf_counter() - start
