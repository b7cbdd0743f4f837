# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Running cells, with a stand-in for the bundle commands."""

from __future__ import annotations

import json
import sys

import pytest
from benchmark_cells import USAGE, fill, make_config
from interruptions import interrupted_when

from monai_fewshot.apps.benchmark.matrix.matrix_reading import read_matrix
from monai_fewshot.apps.benchmark.running import cell_runner
from monai_fewshot.apps.benchmark.running.schedule import Schedule

STUB = """
import json, os, pathlib, sys, time
usage, where, settings, log = pathlib.Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]
device = os.environ.get("CUDA_VISIBLE_DEVICES", "-")
open(log, "a").write(f"{where} {device} {settings.get('max_epochs')} {settings.get('epoch_length')}\\n")
print("began", where)
if (pathlib.Path(log).parent / "wait").exists():
    time.sleep(600)
if any(word in where for word in os.environ.get("BREAK", "nothing").split(",")):
    sys.exit("MemoryError: no room")
if usage.name == "evaluate_usage.json":
    (usage.parent / "results.csv").write_text("scores")
seconds = 10 + 0.5 * (settings.get("epoch_length") or 0) if "/speed/" in str(usage) else 120.0
used = {"seconds": 3 * seconds, "busy_seconds": seconds, "peak_memory_mb": 1, "peak_gpu_memory_mb": None}
usage.write_text(json.dumps(used))
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    def command(step, usage):
        settings = {key: value for key, value in step.settings.items() if isinstance(value, int)}
        where = str(usage).partition("/out/")[2]
        return [sys.executable, "-S", "-c", STUB, str(usage), where, json.dumps(settings), str(tmp_path / "log")]

    monkeypatch.setattr(cell_runner, "measured_command", command)
    return tmp_path / "log"


def schedule(folder, only=None, methods=("images", "plain"), **changes):
    """A schedule of one seed, of some of the methods or of others."""
    if not isinstance(methods, dict):
        methods = {name: make_config(folder)[1]["methods"][name] for name in methods}
    path, _ = make_config(folder, methods=methods, reference=None, seeds=[0], **changes)
    return Schedule(read_matrix(path), only)


def commands(log):
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def test_each_training_is_done_once_for_all_its_evaluations(tmp_path, stub, capsys):
    work = schedule(tmp_path, only="/ct/")
    calls = []
    assert work.run(lambda: calls.append(0)) == {}
    words = [line[0] for line in commands(stub)]
    trainings = [word for word in words if word.endswith("train_usage.json")]
    assert sorted(trainings) == [f"cells/images/ct/setting1/all/fold{fold}_seed0/train_usage.json" for fold in (0, 1)]
    assert sum("on_mr/" in word for word in words) == 2
    assert sum("on_ct/" in word for word in words) == 4
    assert len(calls) == 4
    assert "0 of 6 cells are done. How long these 4 trainings take" in capsys.readouterr().out
    cell = next(cell for cell in work.cells if cell.row.method.name == "images")
    record = cell.results()
    assert record["training"]["seconds"] == 360.0
    assert record["training"]["busy_seconds"] == 120.0
    assert record["evaluation"]["command"][1:4] == ["-m", "monai.bundle", "run"]
    assert record["identity"]["data"]["trained on"] == cell.row.train.fingerprint
    assert {"torch", "monai"} <= record["versions"].keys()
    assert "began" in (cell.folder / "evaluate.log").read_text()
    assert schedule(tmp_path, only="/ct/").run(lambda: calls.append(0)) == {}
    assert len(commands(stub)) == len(words)


def test_a_failure_stops_no_other_and_is_tried_again(tmp_path, stub, monkeypatch, capsys):
    monkeypatch.setenv("BREAK", "images/mr/setting1/all/fold0_seed0/train_,fold1_seed0/on_ct/evaluate_")
    failures = schedule(tmp_path, only="images/").run(lambda: None)
    assert sorted(failures) == [
        "images/ct/setting1/all/fold1_seed0/on_ct",
        "images/mr/setting1/all/fold0_seed0/on_mr",
    ]
    assert "train ended with code 1" in failures["images/mr/setting1/all/fold0_seed0/on_mr"]
    assert all("MemoryError: no room" in reason for reason in failures.values())
    assert "on_mr: FAILED: train ended" in capsys.readouterr().out
    again = schedule(tmp_path, only="images/")
    assert {cell.name for cell in again.waiting} == set(failures)
    assert all("no room" in cell.failure() for cell in again.waiting)
    assert "| images | mr | 1 | 2 | 1 | 1 |" in again.plan()
    monkeypatch.setenv("BREAK", "nothing")
    before = len(commands(stub))
    assert again.run(lambda: None) == {}
    assert len(commands(stub)) == before + 3
    assert all(cell.failure() is None for cell in again.cells)


def test_minutes_become_iterations_that_are_the_same_for_all_cells(tmp_path, stub):
    methods = {"images": {"budget": {"minutes": 5, "epochs": 4, "probe_iterations": 10}}}
    schedule(tmp_path, methods=methods).run(lambda: None)
    probes = [line for line in commands(stub) if line[0].startswith("speed/")]
    assert [line[2:] for line in probes] == [["1", "1"], ["1", "10"], ["1", "40"]]
    trainings = [line for line in commands(stub) if line[0].endswith("train_usage.json") and line not in probes]
    assert len(trainings) == 8
    assert {tuple(line[2:]) for line in trainings} == {("4", "150")}


def test_settings_of_a_data_set_are_timed_for_themselves(tmp_path, stub):
    content = {"budget": {"minutes": 5, "epochs": 4, "probe_iterations": 10}}
    methods = {"images": {**content, "for_dataset": {"ct": {"train": {"image_size": [9, 9]}}}}}
    schedule(tmp_path, methods=methods).run(lambda: None)
    folders = {line[0].rpartition("/")[0] for line in commands(stub) if line[0].startswith("speed/")}
    assert folders == {"speed/images", "speed/images_ct"}


def test_devices_are_shared_out(tmp_path, stub):
    schedule(tmp_path, methods=("images",), devices=[3, 5]).run(lambda: None)
    assert {line[1] for line in commands(stub)} == {"3", "5"}


def test_time_is_estimated_from_what_is_done(tmp_path, stub):
    work = schedule(tmp_path, methods=("images",))
    first = next(cell for cell in work.cells if cell.row.train.name == "mr")
    fill(first)
    work = schedule(tmp_path, methods=("images",))
    trainings = {cell.training_name for cell in work.waiting}
    assert work.time_left(work.waiting) == f"About 0 h {round(2.5 * len(trainings)):02d} min are left, 1 at a time."
    assert work.time_left([]) == "Nothing is left to do."
    assert first.name not in work.plan()


def test_cells_that_were_made_otherwise_are_named(tmp_path):
    fill(schedule(tmp_path, methods=("images",)).cells[0])
    methods = {"images": {"train": {"image_size": [9, 9]}}}
    with pytest.raises(ValueError, match=r"(?s)made otherwise.*images/mr/setting1/all/fold0_seed0/on_mr: train was"):
        schedule(tmp_path, methods=methods)


def test_a_part_of_a_name_that_no_cell_has_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--only image/: no cell has this in its name"):
        schedule(tmp_path, only="image/")


def test_an_interruption_ends_what_runs_and_is_no_failure(tmp_path, stub):
    (tmp_path / "wait").touch()
    work = schedule(tmp_path, only="images/")
    with interrupted_when(stub.exists):
        work.run(lambda: None)
    assert len(commands(stub)) == 1
    assert all(cell.failure() is None and cell.results() is None for cell in work.cells)
    (tmp_path / "wait").unlink()
    assert schedule(tmp_path, only="images/").run(lambda: None) == {}
    seconds = [cell.results()["training"]["seconds"] for cell in work.cells]
    assert max(seconds) > USAGE["seconds"]
