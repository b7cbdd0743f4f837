# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
r"""Dice and HD95 of SSL-ALPNet by cross-validation, in range and on whole volumes, beside published figures.

    python benchmarks/accuracy.py DATA/mscmr_bssfp DATA/chaos_t2 \
        "DATA/chaos_t2:liver,spleen" "DATA/chaos_t2:right kidney,left kidney" --background \
        --results docs/results/ssl_alpnet.md

trains and evaluates all folds with the bundle's defaults. A data set's folder may be followed by classes that training
shall not see; these are then tested (the field's setting 2), and the groups of a data set make one table. Repeat the
command to go on after an interruption: finished runs stay, trainings continue from their checkpoints. The tables go to
standard output, OUTPUT_DIR/accuracy.json and, between the lines `<!-- accuracy:begin -->` and `<!-- accuracy:end -->`,
into the file of --results, after every run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from accuracy_tables import SHOWN, Comparison, Group, markdown
from bundle_runs import BundleRun
from run_queue import RunQueue

from monai_fewshot.apps.benchmark import PUBLISHED, SOURCES, marked_text, replace_between
from monai_fewshot.data import class_numbers, load_class_names, load_folds
from monai_fewshot.utils import write_atomically

MARKER = "accuracy"


def parse_group(text: str) -> Group:
    """``DIR`` or ``DIR:class,class``, checked against the data set."""
    folder, separator, classes = (text, "", "") if Path(text).is_dir() else text.rpartition(":")
    if not separator:
        folder, classes = text, ""
    group = Group(Path(folder).resolve(), tuple(name.strip() for name in classes.split(",") if name.strip()))
    try:
        load_folds(group.dataset_dir)
        class_numbers(load_class_names(group.dataset_dir, required=True), group.excluded)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return group


def parse_override(text: str) -> tuple[str, Any]:
    """``key=value`` with a value in JSON, or text."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="+", type=parse_group, metavar="DIR[:CLASS,...]", help="data set to run")
    parser.add_argument("--output_dir", type=Path, default=Path("accuracy_output"), help="runs, log and accuracy.json")
    parser.add_argument("--folds", type=int, nargs="+", help="default: all of the data set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--threads", type=int, help="of each run (default: the cores, divided among parallel runs)")
    override: dict[str, Any] = {"type": parse_override, "action": "append", "default": [], "metavar": "KEY=VALUE"}
    parser.add_argument("--train", **override, help="value for the bundle's training; may be repeated")
    parser.add_argument("--evaluate", **override, help="value for the bundle's evaluation; may be repeated")
    parser.add_argument("--results", type=Path, help="Markdown file with the two marker lines")
    parser.add_argument("--background", action="store_true", help="detach; output goes to OUTPUT_DIR/accuracy.log")
    parser.add_argument("--report_only", action="store_true", help="write the tables of what has been run")
    arguments = parser.parse_args(words)
    if arguments.parallel < 1 or (arguments.threads is not None and arguments.threads < 1):
        parser.error("--parallel and --threads must be 1 or greater")
    arguments.threads = arguments.threads or max(1, (os.cpu_count() or 1) // arguments.parallel)
    try:
        comparisons(arguments, {})
        [run.results() or run.progress() for run in planned_runs(arguments)]
        if arguments.results is not None:
            marked_text(arguments.results, MARKER, "")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return arguments


def folds_of(group: Group, arguments: argparse.Namespace) -> list[int]:
    """Folds asked for, or all of the data set."""
    existing = [fold.index for fold in load_folds(group.dataset_dir)]
    unknown = set(arguments.folds or []) - set(existing)
    if unknown:
        raise ValueError(f"--folds: {group.dataset_dir} has folds {existing}, not {sorted(unknown)}")
    return arguments.folds or existing


def planned_runs(arguments: argparse.Namespace) -> list[BundleRun]:
    """All runs, fold after fold, so that every table fills evenly."""
    cells = [
        (position, seed, group, fold)
        for group in arguments.groups
        for position, fold in enumerate(folds_of(group, arguments))
        for seed in arguments.seeds
    ]
    runs = []
    for _, seed, group, fold in sorted(cells, key=lambda cell: cell[:2]):
        train: dict[str, Any] = {"seed": seed}
        evaluate: dict[str, Any] = {}
        if group.excluded:
            train["exclude_classes"] = evaluate["classes"] = list(group.excluded)
        folder = arguments.output_dir / group.run_name(fold, seed)
        extra = (dict(arguments.train), dict(arguments.evaluate))
        runs.append(BundleRun(folder, group.dataset_dir, fold, {**train, **extra[0]}, {**evaluate, **extra[1]}))
    return runs


def comparisons(arguments: argparse.Namespace, results: dict[str, dict[str, Any]]) -> list[Comparison]:
    """One comparison for each data set and setting.

    Raises:
        ValueError: where two groups would share runs or classes.
    """
    sets: dict[tuple[Path, int], list[Group]] = {}
    for group in arguments.groups:
        sets.setdefault((group.dataset_dir, 2 if group.excluded else 1), []).append(group)
    if len({(path.name, setting) for path, setting in sets}) < len(sets):
        raise ValueError("two data sets have folders of the same name; their runs would be mixed up")
    return [
        Comparison(
            path.name,
            setting,
            tested_by(path, setting, groups),
            folds_of(groups[0], arguments),
            arguments.seeds,
            results,
        )
        for (path, setting), groups in sets.items()
    ]


def tested_by(dataset_dir: Path, setting: int, groups: Sequence[Group]) -> dict[str, Group | None]:
    """Group whose networks are tested for each class, None where none is that the published figures include."""
    names = load_class_names(dataset_dir)
    published = PUBLISHED.get((dataset_dir.name, setting), {}).get("SSL-ALPNet", {})
    tested: dict[str, Group | None] = {}
    for number, name in names.items():
        testing = [group for group in groups if not group.excluded or number in class_numbers(names, group.excluded)]
        if len(testing) > 1:
            raise ValueError(f"{dataset_dir.name}: {name} is tested by more than one group of setting {setting}")
        if testing or name in published:
            tested[name] = testing[0] if testing else None
    return tested


def report(arguments: argparse.Namespace, queue: RunQueue) -> str:
    """Write the tables and figures to where they belong, and return the tables."""
    tables = comparisons(arguments, queue.results)
    sources = "; ".join(f"{method}: {SOURCES[method]}" for method in SHOWN)
    text = "\n\n".join([*map(markdown, tables), f"Published: {sources}. Dice in percent, HD95 in mm."])
    record = {
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "tables": [without_nan(table.record()) for table in tables],
        "runs": queue.results,
        "failures": {name: str(error) for name, error in queue.failures.items()},
    }
    write_atomically(arguments.output_dir / "accuracy.json", json.dumps(record, indent=1))
    if arguments.results is not None:
        replace_between(arguments.results, MARKER, text)
    return text


def without_nan(value: Any) -> Any:
    """The value with "undefined" for NaN, which JSON lacks; null stays what has not been run."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return "undefined" if isinstance(value, float) and math.isnan(value) else value


def update(arguments: argparse.Namespace, queue: RunQueue) -> None:
    """Report while runs go on, which a file that cannot be written for now must not end."""
    try:
        report(arguments, queue)
    except (OSError, ValueError) as error:
        print(f"The tables were not written: {error}", flush=True)


def detach(words: Sequence[str], output_dir: Path) -> None:
    """Start this command again, on its own and with its output in a log."""
    output_dir.mkdir(parents=True, exist_ok=True)
    log_path = output_dir / "accuracy.log"
    command = [sys.executable, str(Path(__file__).resolve()), *(word for word in words if word != "--background")]
    with open(log_path, "a") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    print(f"Running in the background as process {process.pid}.")
    print(f"  watch:  tail -f {log_path}")
    print(f"  end:    kill {process.pid}")
    print("  go on after an interruption: the same command again")


def main(words: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    arguments = parse_arguments(words)
    if arguments.background:
        detach(words, arguments.output_dir)
        return 0
    queue = RunQueue(planned_runs(arguments), arguments.parallel, arguments.threads)
    if not arguments.report_only:
        try:
            queue.work(finished=lambda: update(arguments, queue))
        except KeyboardInterrupt:
            print("\nInterrupted. The same command goes on from here.", flush=True)
            return 130
    print(f"\n{report(arguments, queue)}")
    for name, error in queue.failures.items():
        print(f"{name} failed: {error}", file=sys.stderr)
    return 1 if queue.failures else 0


if __name__ == "__main__":
    sys.exit(main())
