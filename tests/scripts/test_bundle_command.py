# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Cells of a table as runs of stand-ins for bundle commands."""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from interruptions import PATIENCE, interrupted_when, is_alive
from monai.bundle import ConfigParser

from monai_fewshot.apps.benchmark import replace_between
from monai_fewshot.apps.bundles import ChildProcesses, Step

ROOT = Path(__file__).parents[2]
SUMMARY = [
    {"protocol": "a", "fold": 0, "class_number": None, "class_name": "mean", "dice": 0.0, "iou": 0.0},
    {"protocol": "a", "fold": 0, "class_number": 1, "class_name": "lesion", "dice": 0.0, "iou": 0.0},
    {"protocol": "a", "fold": None, "class_number": 1, "class_name": "lesion", "dice": 0.75, "iou": 0.625},
    {"protocol": "a", "fold": None, "class_number": 2, "class_name": "polyp", "dice": 0.25, "iou": 0.125},
    {"protocol": "a", "fold": None, "class_number": None, "class_name": "mean", "dice": 0.5, "iou": 0.375},
    {"protocol": "b", "fold": None, "class_number": 1, "class_name": "lesion", "dice": 0.2, "iou": 0.1},
    {"protocol": "b", "fold": None, "class_number": None, "class_name": "mean", "dice": 0.1, "iou": 0.05},
]
WRITE = f"import pathlib; pathlib.Path('eval/results.json').write_text('''{json.dumps({'summary': SUMMARY})}''')"


@pytest.fixture
def bundles(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("bundle_command")


@pytest.fixture
def cell(bundles, tmp_path):
    @dataclass(frozen=True)
    class Stub(Step):
        """A step that runs Python code in the folder of the cell."""

        code: str = ""

        @property
        def folder(self):
            return tmp_path / self.bundle

        def command(self):
            return [sys.executable, "-S", "-c", self.code]

    def make(name, *codes):
        (tmp_path / name / "eval").mkdir(parents=True)
        return bundles.Cell(
            tmp_path / name, tuple(Stub(name, ("part", str(n)), {}, code=c) for n, c in enumerate(codes))
        )

    return make


def test_a_step_is_a_command_of_monai_in_its_bundle():
    step = Step("masksplit", ("train",), {"ckpt_dir": Path("a b/model"), "split#prob": 0.3, "resume": True})
    assert step.command() == [
        *(sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/train.json"),
        *("--ckpt_dir", "a b/model", "--split#prob", "0.3", "--resume", "True"),
    ]
    assert (step.folder / "configs" / "train.json").is_file()


def test_several_configurations_are_one_list_in_order():
    words = Step("surrogate_fewshot", ("train", "few_shot"), {}).command()
    assert ast.literal_eval(words[words.index("--config_file") + 1]) == ["configs/train.json", "configs/few_shot.json"]
    assert words[-2] == "--config_file"


def test_none_is_an_expression_of_a_configuration():
    *_, key, value = Step("masksplit", ("train",), {"augmentation": None}).command()
    assert (key, value) == ("--augmentation", "$None")
    assert ConfigParser({"augmentation": value}).get_parsed_content("augmentation") is None


def test_a_step_keeps_the_environment_and_its_threads(monkeypatch):
    monkeypatch.setenv("SOME_VARIABLE", "kept")
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    environment = Step.environment(3)
    assert environment["SOME_VARIABLE"] == "kept"
    assert environment["OMP_NUM_THREADS"] == "3"
    assert all(isinstance(value, str) for value in environment.values())


def test_a_cell_does_its_steps_in_order_and_keeps_the_overall_results(bundles, cell):
    made = cell(
        "a", "import os; print('first', os.environ['OMP_NUM_THREADS'], flush=True)", WRITE + "; print('second')"
    )
    assert made.results() is None
    start = time.perf_counter()
    result = made.run(2, ChildProcesses())
    assert result["overall"] == SUMMARY[4]
    assert result["by_class"] == {"lesion": SUMMARY[2], "polyp": SUMMARY[3]}
    assert result["evaluations"]["eval"]["b"] == {"lesion": SUMMARY[5], "mean": SUMMARY[6]}
    assert bundles.overall(result, "eval") == SUMMARY[4]
    assert bundles.overall(result, "eval", "b") == SUMMARY[6]
    assert 0 < 60 * result["minutes"] < time.perf_counter() - start
    assert made.results() == result
    assert (made.folder / "log.txt").read_text().split() == ["first", "2", "second"]


def test_steps_after_one_that_fails_are_not_done(cell):
    made = cell("a", "raise SystemExit('no room')", WRITE)
    with pytest.raises(RuntimeError, match=r"^part 0 ended with 1, see .*a/log\.txt$"):
        made.run(1, ChildProcesses())
    assert made.results() is None
    assert not (made.folder / "eval" / "results.json").exists()
    assert "no room" in (made.folder / "log.txt").read_text()


def test_finished_cells_are_skipped(bundles, cell, capsys):
    done, waiting = cell("done", "raise SystemExit('again')"), cell("waiting", WRITE)
    (done.folder / "cell.json").write_text("{}")
    calls = []
    assert bundles.run_cells([done, waiting], 1, 1, lambda: calls.append(waiting.results() is not None)) == {}
    assert calls == [True]
    assert not (done.folder / "log.txt").exists()
    first, second = capsys.readouterr().out.splitlines()
    assert first == "1 of 2 are done"
    assert re.match(r"1/1 waiting: Dice 50\.0, IoU 37\.5, \d+\.\d min", second)
    assert bundles.run_cells([done, waiting], 1, 1, lambda: calls.append(False)) == {}
    assert calls == [True]


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_cell_that_fails_is_reported_and_stops_no_other(parallel, bundles, cell, capsys):
    cells = [cell("broken", "raise SystemExit(3)"), cell("good", WRITE), cell("empty", "pass"), cell("last", WRITE)]
    calls = []
    failures = bundles.run_cells(cells, parallel, 1, lambda: calls.append(0))
    assert sorted(failures) == ["broken", "empty"]
    assert failures["broken"] == f"part 0 ended with 3, see {cells[0].folder / 'log.txt'}"
    assert "results.json" in failures["empty"]
    assert [made.results() is not None for made in cells] == [False, True, False, True]
    assert len(calls) == 2
    assert f"broken FAILED: {failures['broken']}" in capsys.readouterr().out
    assert list(bundles.run_cells(cells[:2], 1, 1, lambda: None)) == ["broken"]


def test_an_interruption_ends_running_cells_and_begins_no_more(bundles, cell):
    wait = f"import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep({PATIENCE})"
    cells = [cell("running", wait), cell("later", WRITE)]
    pid = cells[0].folder / "pid"
    with interrupted_when(lambda: pid.exists() and pid.read_text()):
        bundles.run_cells(cells, 1, 1, lambda: None)
    assert not is_alive(int(pid.read_text()))
    assert cells[1].results() is None


def test_content_replaces_what_stood_between_the_markers(tmp_path):
    path = tmp_path / "results.md"
    path.write_text("# A\n<!-- a:begin -->\nold\n<!-- a:end -->\n<!-- b:begin -->\nkept\n<!-- b:end -->\nend\n")
    for content in ("| first |", "| second |"):
        replace_between(path, "a", content)
        assert path.read_text() == (
            f"# A\n<!-- a:begin -->\n\n{content}\n\n<!-- a:end -->\n<!-- b:begin -->\nkept\n<!-- b:end -->\nend\n"
        )


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        "<!-- a:begin --> x",
        "x <!-- a:end -->",
        "<!-- a:end --> x <!-- a:begin -->",
        "<!-- a:begin --> x <!-- a:end --> <!-- a:begin --> x <!-- a:end -->",
        "<!-- b:begin --> x <!-- b:end -->",
    ],
)
def test_markers_that_are_not_there_once_are_named(text, tmp_path):
    path = tmp_path / "results.md"
    path.write_text(text)
    message = r"results\.md must hold the lines <!-- a:begin --> and <!-- a:end --> once each, in this order$"
    with pytest.raises(ValueError, match=message):
        replace_between(path, "a", "new")
    assert path.read_text() == text
