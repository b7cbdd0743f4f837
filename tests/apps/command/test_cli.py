# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monai_fewshot.apps.command import ScanProblem, SegmentedFolder, segmenting
from monai_fewshot.apps.command.bundle_commands import bundle_words, read_settings
from monai_fewshot.apps.command.cli import app

SEGMENT = ["segment", "scans", "--example", "a.nii.gz", "b.nii.gz", "--output", "masks"]


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")

    def run(*words):
        result = CliRunner().invoke(app, [str(word) for word in words])
        return result.exit_code, re.sub(r"\s+", " ", result.output)

    return run


def _done(**changes):
    """A folder in which nothing was segmented."""
    tables = {name: Path(f"{name}.csv") for name in ("measurements", "problem_table", "quality")}
    nothing = {"masks": {}, "problems": (), "warnings": (), "model": None, "index": Path("index.html"), "flagged": ()}
    return SegmentedFolder(**{**nothing, **tables, **changes})


@pytest.fixture
def called(monkeypatch):
    """What ``segment`` was called with; it segments nothing."""
    calls = []

    def pretend(*arguments, **options):
        calls.append((arguments, options))
        return _done()

    monkeypatch.setattr(segmenting, "segment", pretend)
    return calls


def test_examples_come_in_pairs_and_may_be_repeated(run, called):
    code, _ = run(*SEGMENT, "--example", "c.nii.gz", "d.nii.gz", "--minutes", "2.5", "--class-names", "liver, spleen")
    assert code == 0
    ((arguments, options),) = called
    assert (called[0][1]["seed_labels"], called[0][1]["flag_below"]) == (None, 0.7)
    pairs = [(Path("a.nii.gz"), Path("b.nii.gz")), (Path("c.nii.gz"), Path("d.nii.gz"))]
    assert arguments == (Path("scans"), pairs, Path("masks"), "self_training", 2.5)
    assert options["class_names"] == ["liver", "spleen"]


@pytest.mark.parametrize(
    ("text", "slices"), [("5", 5), ("labeled", "labeled"), ("3,9,14", [3, 9, 14]), ("3,", [3]), (None, None)]
)
def test_which_slices_are_annotated(text, slices, run, called):
    assert run(*SEGMENT, *([] if text is None else ["--annotated-slices", text]))[0] == 0
    assert called[0][1]["annotated_slices"] == slices


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*SEGMENT, "--minuts", "3"], r"No such option: --minuts .*--minutes"),
        ([*SEGMENT, "--minutes", "few"], r"--minutes"),
        ([*SEGMENT, "--annotated-slices", "some"], r"--annotated-slices is 'some': give 5 for every fifth slice"),
        (["segment", "scans", "--example", "a.nii.gz", "--output", "masks"], r"needs two files: --example IMAGE LABEL"),
        (["segment", "scans", "--output", "masks"], r"--example"),
        (["segmnt"], r"No such command 'segmnt'.*segment"),
        (
            ["train", "supervised", "--max_epoch", "3"],
            r"no setting 'max_epoch' in train.json; did you mean max_epochs\?",
        ),
        (["train", "supervisd"], r"there is no bundle supervisd; did you mean supervised\?"),
        (["train", "registration"], r"registration has no step train"),
        (["evaluate", "supervised", "--fold"], r"--fold has no value"),
        (["inspect", "nowhere"], r"nowhere does not exist: give a folder of scans"),
    ],
)
def test_bad_usage_ends_with_code_2(words, message, run, called):
    code, output = run(*words)
    assert code == 2
    assert re.search(message, output), output
    assert called == []


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("bad"), 2, "Error: bad"),
        (FileNotFoundError("gone"), 2, "Error: gone"),
        (RuntimeError("train ended"), 1, "Error: train ended"),
        (KeyboardInterrupt(), 130, "Interrupted. The same command goes on from here."),
    ],
)
def test_errors_have_codes_and_texts(error, code, text, run, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(segmenting, "segment", fail)
    ended, output = run(*SEGMENT)
    assert (ended, output.strip()) == (code, text)


def test_problems_of_scans_end_with_code_3(run, monkeypatch):
    problem = ScanProblem("a", "a.nii", "is constant, every voxel is 0", "Leave it out.")
    monkeypatch.setattr(segmenting, "segment", lambda *_, **__: _done(problems=(problem,)))
    code, output = run(*SEGMENT)
    assert code == 3
    assert "is constant, every voxel is 0" in output
    assert "Problems: problem_table.csv" in output


def test_masks_to_look_at_are_named(run, monkeypatch):
    names = tuple(f"scan{number}" for number in range(12))
    monkeypatch.setattr(segmenting, "segment", lambda *_, **__: _done(flagged=names))
    code, output = run(*SEGMENT, "--flag-below", "0.6")
    assert code == 0
    assert f"predicted Dice below 0.6: {', '.join(names[:10])} and 2 more Predicted quality: quality.csv" in output


def test_help_tells_the_exit_codes(run):
    code, output = run("segment", "--help")
    assert code == 0
    assert "IMAGE LABEL" in output
    assert "3 some scans could not be" in output


def test_a_folder_is_inspected(run, scans, example):
    (scans / "broken.nii.gz").write_bytes(b"no scan")
    code, output = run("inspect", scans, "--example", *example)
    assert code == 3
    for text in (
        "32 x 32 x 8",
        "nii.gz",
        "RAS",
        "liver",
        "1 problem(s)",
        "is not compressed, although its name ends",
        "minutes of training",
    ):
        assert text in output
    assert "example phantom_001" in output


def test_other_tools_are_called(run, tmp_path, capfd):
    code, output = run("bundle", "copy", "panet", "--output_dir", tmp_path / "mine")
    assert (code, output.strip()) == (0, str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "configs" / "train.json").is_file()
    code, _ = run(
        "phantom", "--output_dir", tmp_path / "data", "--num_volumes", "2", "--size", "(32,32,8)", "--num_folds", "2"
    )
    assert code == 0
    assert (tmp_path / "data" / "dataset.json").is_file()


def test_a_step_of_a_bundle_is_told_its_settings():
    words = bundle_words("ssl_alpnet/annotated", "train", ["--fold", "1", "--optimizer#lr=0.1"])
    assert words[:2] == ["run", "--config_file"]
    assert "train.json" in words[2]
    assert "annotated.json" in words[2]
    assert words[3:] == ["--fold", "1", "--optimizer#lr", "0.1"]


@pytest.mark.parametrize(("words", "message"), [(["fold", "1"], "'fold' is no setting"), (["--fold"], "has no value")])
def test_what_is_no_setting_is_told(words, message):
    with pytest.raises(ValueError, match=message):
        read_settings(words)
