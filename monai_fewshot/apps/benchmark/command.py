# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from monai_fewshot.apps.fire_calls import fire_calls
from monai_fewshot.utils import Provenance, write_atomically
from monai_fewshot.visualize import figure_to_png

from .leaderboard.boards import Board, boards
from .leaderboard.leaderboard_page import leaderboard_page
from .leaderboard.leaderboard_text import cases_csv, leaderboard_markdown
from .leaderboard.marked_text import marked_text, replace_between
from .leaderboard.overview import method_colors, overview_figure, overview_markdown
from .matrix.description import Matrix
from .matrix.matrix_reading import read_matrix
from .running.cluster import Cluster
from .running.schedule import Schedule

__all__ = ["main", "run_benchmark", "write_leaderboard"]

INTERRUPTED = 130
HEAD_ROWS = 6
ALL_TABLES, OVERVIEW, HEAD = "benchmark", "overview", "leaderboard"
"""Names of the marker lines in Markdown files."""


def run_benchmark(
    config: str,
    output_dir: str | None = None,
    only: str | None = None,
    plan_only: bool = False,
    report_only: bool = False,
    results: str = "",
    cluster: str | None = None,
    partition: str | None = None,
    hours: float = 24.0,
    gpus: int = 0,
) -> int:
    """Run a matrix of methods, data sets, settings, folds and seeds, and make tables of it.

    The same command goes on after an interruption and skips what is done; cells that failed are tried again. The tables
    are written anew after every training, the page when all are done.

    Args:
        config: YAML file that says what to run, see ``docs/benchmark.md``.
        output_dir: folder of everything that is written; default: that of the YAML file.
        only: part of the names of the cells to run, such as ``ssl_alpnet/chaos_t2/setting1``; default: all.
        plan_only: tell what would be run and how long it would take.
        report_only: write the tables of what has been run.
        results: Markdown files to write to, with commas between. Between the lines ``<!-- benchmark:begin -->`` and
            ``<!-- benchmark:end -->`` come all tables, between such lines of ``overview`` the table of all tables,
            between those of ``leaderboard`` its head.
        cluster: "slurm" to make each training, with its evaluations, a job of a cluster, "local" to try that out on
            this machine; default: processes of this machine.
        partition: of Slurm; default: its own.
        hours: that a job of the cluster may take before it is queued again.
        gpus: of each job of the cluster.

    Returns:
        0, or 1 where cells failed.

    Raises:
        FileNotFoundError: where there is no such YAML file.
        ValueError: with all that is wrong with it, or with the options of the cluster.
        KeyboardInterrupt: on Ctrl-C, when all processes have ended.
    """
    matrix = read_matrix(Path(config))
    if output_dir is not None:
        matrix = replace(matrix, output_dir=Path(output_dir).expanduser().absolute())
    targets = [Path(file) for file in filter(None, results.split(","))]
    for target in targets:
        _markers(target)
    if partition is not None and cluster is None:
        raise ValueError("--partition is one of a cluster: give --cluster slurm, too.")
    place = None
    if cluster is not None:
        place = Cluster(cluster, partition, hours, gpus, matrix.threads, matrix.parallel)
    schedule = Schedule(matrix, only, place)
    if plan_only:
        print(schedule.plan())
        return 0
    failures = {} if report_only else schedule.run(lambda: _write_tables(matrix, boards(matrix), targets))
    write_leaderboard(matrix, targets)
    for name, reason in failures.items():
        print(f"FAILED {name}: {reason}", file=sys.stderr)
    print(f"Leaderboard: {matrix.output_dir / 'leaderboard.html'}")
    return 1 if failures else 0


def write_leaderboard(matrix: Matrix, results: Sequence[Path] = ()) -> None:
    """Write ``benchmark.json``, ``cases.csv``, ``leaderboard.md``, ``leaderboard.html`` and ``overview.png``.

    Args:
        matrix: what was asked for.
        results: Markdown files with the marker lines.
    """
    found = boards(matrix)
    _write_tables(matrix, found, results)
    settings = json.loads(json.dumps(asdict(matrix), default=str))
    provenance = Provenance("", **settings).state_dict()
    write_atomically(matrix.output_dir / "benchmark.json", json.dumps(provenance, indent=1))
    write_atomically(matrix.output_dir / "leaderboard.html", leaderboard_page(found, matrix, provenance))
    if any(board.ranked for board in found):
        picture = figure_to_png(overview_figure(found, method_colors(matrix)))
        write_atomically(matrix.output_dir / "overview.png", picture)


def _write_tables(matrix: Matrix, found: Sequence[Board], results: Sequence[Path]) -> None:
    text = leaderboard_markdown(found, matrix)
    marked = {ALL_TABLES: text, OVERVIEW: overview_markdown(found), HEAD: overview_markdown(found, HEAD_ROWS)}
    write_atomically(matrix.output_dir / "cases.csv", cases_csv(found))
    write_atomically(matrix.output_dir / "leaderboard.md", f"# {matrix.title}\n\n{text}\n")
    for file in results:
        for marker in _markers(file):
            replace_between(file, marker, marked[marker])


def _markers(file: Path) -> list[str]:
    """Which marker lines a Markdown file has."""
    text = file.read_text(encoding="utf-8")
    found = [marker for marker in (ALL_TABLES, OVERVIEW, HEAD) if f"<!-- {marker}:" in text]
    for marker in found or [ALL_TABLES]:
        marked_text(file, marker, "")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a benchmark from a shell.

    Args:
        arguments: of the command. Defaults to None, those of the process.

    Raises:
        SystemExit: with code 2 for arguments that are not understood, 1 and the reason where something fails, 130 where
            it is interrupted.
    """
    (call,) = fire_calls(run_benchmark, arguments, "monai_fewshot.apps.benchmark")
    try:
        code = call()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("\nInterrupted; all processes have ended. The same command goes on from here.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(code)
