# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The accuracy command on a made-up data set, with a stand-in for the bundle."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import re
import signal
import statistics
import sys
from pathlib import Path

import pytest
from interruptions import is_alive, wait_until

ROOT = Path(__file__).parents[2]
CLASSES = {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}
STEPS = 20
BUNDLE = """
import json, os, pathlib, sys, time
config, values = sys.argv[1], json.loads(sys.argv[2])
print(config, values)
folder = pathlib.Path(values["ckpt_dir"] if config == "train" else values["output_dir"])
folder.mkdir(parents=True, exist_ok=True)
if config == "train":
    (folder / "pid").write_text(str(os.getpid()))
    state, log = folder / "checkpoint.pt", folder / "steps"
    first = int(state.read_text()) if state.exists() and values["resume"] == "True" else 0
    for step in range(first, int(values.get("steps", 20))):
        with open(log, "a") as file:
            file.write(f"{step} ")
        while step == int(values.get("wait_at", -1)) and not (folder / "go").exists():
            time.sleep(0.01)
        (folder / "written").write_text(str(step + 1))
        os.replace(folder / "written", state)
    if (folder.parent.parent / f"break_{values['seed']}_{values['fold']}").exists():
        sys.exit("ValueError: the network is broken")
    (folder / "model.pt").touch()
else:
    if (folder.parent / "break_evaluation").exists():
        sys.exit("MemoryError: no room")
    assert pathlib.Path(values["checkpoint"]).is_file()
    excluded = eval(values["classes"]) if "classes" in values else []
    names = [name for name in ["liver", "right kidney", "left kidney", "spleen"] if name in (excluded or name)]
    seed = int(pathlib.Path(folder).name[-1])
    rows = []
    for protocol, base in (("alpnet", 0.5), ("whole_volume", 0.3)):
        for name in names:
            dice = base + int(values["fold"]) ** 2 / 50 + len(name) / 100 + seed / 20 + len(names) / 100
            row = dict(protocol=protocol, fold=None, class_name=name, dice=dice, hd95=20 / dice, undefined_hd95=0)
            rows += [row, {**row, "fold": 0, "dice": 0.0}]
        rows.append(dict(protocol=protocol, fold=None, class_name="mean", dice=dice, hd95=None, undefined_hd95=1))
    training = {values["fold"]: {"settings": {"seed": seed, "iterations": 1500}}}
    versions = {"torch": "2.0", "monai": "1.6"}
    provenance = {"settings": {"image_size": [64, 64]}, "versions": versions, "training": training}
    (folder / "results.json").write_text(json.dumps({"summary": rows, "provenance": provenance}))
"""


@pytest.fixture
def accuracy(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    (tmp_path / "bundle.py").write_text(BUNDLE)

    def command(config, overrides, folder):
        values = {key: str(value) for key, value in overrides.items()}
        return [sys.executable, str(tmp_path / "bundle.py"), config, json.dumps(values)]

    monkeypatch.setattr(importlib.import_module("bundle_runs"), "bundle_command", command)
    return importlib.import_module("accuracy")


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "chaos_t2"
    folder.mkdir()
    names = [f"scan{number}.nii.gz" for number in range(10)]
    for name in names:
        (folder / name).touch()
    labels = {"0": "background", **{str(number): name for number, name in CLASSES.items()}}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "training": [{"image": n} for n in names]}))
    return folder


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


def words(*items, output, **options):
    return [str(item) for item in (*items, "--output_dir", output, "--threads", 1, *sum(options.items(), ()))]


def start(function, *arguments):
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def wait_for(path, text):
    wait_until(lambda: path.exists() and path.read_text() == text)


def rows_of(text, first):
    """Cells of the table rows that begin with a given cell."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [row[1:] for row in rows if row[0] == first]


def dice(base, fold, name, seed, tested):
    return 100 * (base + fold**2 / 50 + len(name) / 100 + seed / 20 + tested / 100)


def test_tables_hold_what_an_independent_computation_gives(accuracy, data, output, capsys):
    groups = [data, f"{data}:liver, spleen", f"{data}:right kidney,left kidney"]
    assert accuracy.main([*words(*groups, output=output, **{"--parallel": 2}), "--seeds", "0", "1"]) == 0
    text = capsys.readouterr().out.partition("### ")[2]
    folds, names, seeds = range(5), list(CLASSES.values()), (0, 1)
    for part, tested in zip(text.split("### "), (4, 2), strict=True):
        by_fold = [
            [statistics.fmean(dice(0.5, fold, name, seed, tested) for seed in seeds) for name in names]
            for fold in folds
        ]
        hd95 = [
            [statistics.fmean(2000 / dice(0.5, fold, name, seed, tested) for seed in seeds) for name in names]
            for fold in folds
        ]
        for position, name in enumerate(names):
            column = [row[position] for row in by_fold]
            (cells,) = rows_of(part, name)
            assert cells[0] == f"{statistics.fmean(column):.1f} ± {statistics.stdev(column):.1f}"
        means = [statistics.fmean(row) for row in by_fold]
        (cells,) = rows_of(part, "mean")
        assert cells[0] == f"{statistics.fmean(means):.1f} ± {statistics.stdev(means):.1f}"
        assert cells[1].split()[0] == f"{statistics.fmean(value for row in hd95 for value in row):.1f}"
        assert float(cells[2].split()[0]) == pytest.approx(statistics.fmean(means) - 20, abs=0.06)
        assert cells[4:] == (["78.84", "85.96"] if tested == 4 else ["73.02", "81.83"])
        for fold in folds:
            (cells,) = rows_of(part, str(fold))
            assert cells[:6] == [f"{v:.1f}" for v in (*by_fold[fold], means[fold], statistics.fmean(hd95[fold]))]
        assert "5 of 5 folds have been run" in part
        assert f"varies by {5 / 2**0.5:.1f} (standard deviation over seeds)" in part
        assert f"{(1 if tested == 4 else 2) * 20} values of HD95" in part
    assert [row[4] for row in rows_of(text, "left kidney")] == ["81.92", "73.63"]
    record = json.loads((output / "accuracy.json").read_text())
    assert len(record["runs"]) == 30
    assert record["tables"][1]["by_fold"]["4"]["spleen"]["Dice in range"] == pytest.approx(92.5)


def test_folder_names_overrides_and_what_the_bundle_is_given(accuracy, data, output):
    options = ["--folds", "2", "--train", "steps=3", "--train", "encoder::width=8", "--evaluate", "threshold=0.5"]
    assert accuracy.main([*words(f"{data}:right kidney,left kidney", output=output), *options]) == 0
    folder = output / "chaos_t2_right_kidney_left_kidney_fold2_seed0"
    run = json.loads((folder / "run.json").read_text())
    kidneys = ["right kidney", "left kidney"]
    assert run["train"] == {"seed": 0, "exclude_classes": kidneys, "steps": 3, "encoder::width": 8}
    assert run["evaluate"] == {"classes": kidneys, "threshold": 0.5}
    assert run["training_seconds"] > 0
    assert "'resume': 'True'" in (folder / "train.log").read_text()
    assert f"'cache_dir': '{output.resolve() / 'cache'}'" in (folder / "train.log").read_text()
    assert "'threshold': '0.5'" in (folder / "evaluate.log").read_text()
    steps = (folder / "fold2" / "steps").read_text()
    assert accuracy.main([*words(f"{data}:right kidney,left kidney", output=output), *options]) == 0
    assert (folder / "fold2" / "steps").read_text() == steps == "0 1 2 "


def test_other_settings_are_not_mixed_into_a_run(accuracy, data, output, capsys):
    assert accuracy.main([*words(data, output=output), "--folds", "0"]) == 0
    with pytest.raises(SystemExit):
        accuracy.main([*words(data, output=output), "--folds", "0", "--train", "steps=4"])
    assert "choose another output_dir" in capsys.readouterr().err


def test_a_failure_is_reported_and_the_rest_goes_on(accuracy, data, output, capsys):
    output.mkdir()
    (output / "break_0_1").touch()
    assert accuracy.main(words(data, output=output)) == 1
    captured = capsys.readouterr()
    assert "chaos_t2_fold1_seed0 failed: train ended with code 1" in captured.err
    assert "ValueError: the network is broken" in captured.err
    assert "4 of 5 folds have been run" in captured.out
    assert set(rows_of(captured.out, "1")[0]) == {"not run"}
    assert "not run" not in rows_of(captured.out, "mean")[0]
    (output / "break_0_1").unlink()
    assert accuracy.main(words(data, output=output)) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("4 of 5 runs are done, about 0 h 00 min left")
    assert "chaos_t2_fold1_seed0: Dice in range" in captured.out


def test_a_failed_evaluation_is_repeated_without_training(accuracy, data, output):
    output.mkdir()
    (output / "break_evaluation").touch()
    arguments = [*words(data, output=output), "--folds", "0"]
    assert accuracy.main(arguments) == 1
    (output / "break_evaluation").unlink()
    assert accuracy.main(arguments) == 0
    assert (output / "chaos_t2_fold0_seed0" / "fold0" / "steps").read_text().split() == [str(n) for n in range(STEPS)]


def test_an_interrupted_training_goes_on_and_its_time_adds_up(accuracy, data, output, capsys):
    arguments = [*words(data, output=output), "--folds", "0", "--train", "wait_at=5"]
    checkpoints = output / "chaos_t2_fold0_seed0" / "fold0"
    driver = start(accuracy.main, arguments)
    wait_for(checkpoints / "checkpoint.pt", "5")
    assert accuracy.main(arguments) == 1
    assert "another process works in" in capsys.readouterr().err
    child = int((checkpoints / "pid").read_text())
    os.kill(driver.pid, signal.SIGTERM)
    driver.join()
    assert driver.exitcode == 0  # main returned, which multiprocessing calls success
    assert not is_alive(child)
    saved = (checkpoints / "checkpoint.pt").stat().st_mtime
    (checkpoints / "go").touch()
    assert accuracy.main(arguments) == 0
    steps = [int(step) for step in (checkpoints / "steps").read_text().split()]
    assert steps == [*range(6), *range(5, STEPS)], "step 5 was begun, but not saved"
    first, second = json.loads((checkpoints.parent / "progress.json").read_text())["attempts"]
    assert first["seconds"] == pytest.approx(saved - first["started"])
    run = json.loads((checkpoints.parent / "run.json").read_text())
    assert run["training_seconds"] == pytest.approx(first["seconds"] + second["seconds"])


def test_a_training_that_outlives_its_driver_keeps_the_lock(accuracy, data, output, capsys):
    arguments = [*words(data, output=output), "--folds", "0", "--train", "wait_at=5"]
    checkpoints = output / "chaos_t2_fold0_seed0" / "fold0"
    driver = start(accuracy.main, arguments)
    wait_for(checkpoints / "checkpoint.pt", "5")
    driver.kill()
    driver.join()
    child = int((checkpoints / "pid").read_text())
    assert is_alive(child)
    assert accuracy.main(arguments) == 1
    assert "another process works in" in capsys.readouterr().err
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: not is_alive(child))
    (checkpoints / "go").touch()
    assert accuracy.main(arguments) == 0


def test_only_what_stands_between_the_markers_is_replaced(accuracy, data, output, tmp_path):
    begin, end = "<!-- accuracy:begin -->", "<!-- accuracy:end -->"
    before, after = "# Results\n\n| a | b |\n\n" + begin, end + "\n\nMore text, no newline at the end"
    path = tmp_path / "results.md"
    path.write_text(f"{before}\nold table\n{after}")
    arguments = [*words(data, output=output, **{"--results": path}), "--folds", "0", "3"]
    assert accuracy.main(arguments) == 0
    text = path.read_text()
    assert text.startswith(before)
    assert text.endswith(after)
    assert "old table" not in text
    assert "2 of 2 folds have been run" in text
    assert accuracy.main([*words(data, output=output, **{"--results": path}), "--report_only"]) == 0
    assert len(re.findall(re.escape("### chaos_t2, setting 1"), path.read_text())) == 1
    assert "2 of 5 folds have been run" in path.read_text()


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["{data}:lungs"], "'lungs' not among the classes"),
        (["{data}/nothing"], "does not exist"),
        (["{data}", "{data}"], "tested by more than one group"),
        (["{data}", "--folds", "7"], "has folds [0, 1, 2, 3, 4], not [7]"),
        (["{data}", "--train", "epochs"], "'epochs' is not key=value"),
        (["{data}", "--results", "{data}/dataset.json"], "must hold the lines <!-- accuracy:begin -->"),
        (["{data}", "--parallel", "0"], "must be 1 or greater"),
    ],
)
def test_wrong_words_are_refused_before_anything_runs(items, message, accuracy, data, output, capsys):
    with pytest.raises(SystemExit):
        accuracy.main(words(*(item.format(data=data) for item in items), output=output))
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_the_background_goes_on_by_itself_and_tells_how_to_watch_it(accuracy, data, output, capsys):
    options = ["--folds", "0", "--report_only", "--background"]
    assert accuracy.main([*words(data, output=output), *options]) == 0
    text = capsys.readouterr().out
    pid = int(re.search(r"process (\d+)", text)[1])
    assert f"tail -f {output / 'accuracy.log'}" in text
    assert f"kill {pid}" in text
    assert os.getsid(pid) == pid != os.getsid(0)
    os.waitpid(pid, 0)
    assert "0 of 1 folds have been run" in (output / "accuracy.log").read_text()
