# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import runpy
import sys

import pytest
from made_cases import make_case

from monai_fewshot.apps.prepare import command
from monai_fewshot.data.scans.scan_folder import load_class_names, load_scans


@pytest.fixture
def source(tmp_path):
    for name in "ab":
        case = make_case(tmp_path / "made", name)
        for file, kind in ((case.image[0], "images"), (case.label[0], "labels")):
            (tmp_path / "source" / kind).mkdir(parents=True, exist_ok=True)
            file.rename(tmp_path / "source" / kind / f"{name}.nii.gz")
    return tmp_path / "source"


def test_a_preparation_from_a_shell(source, tmp_path, monkeypatch, capsys):
    words = ["folder", "--source", str(source), "--output_dir", str(tmp_path / "out"), "--workers", "0"]
    words += ["--num_folds", "2", "--class_names", "{1: liver, 3: spleen}", "--modality", "mr", "--size", "8,6"]
    monkeypatch.setattr(sys, "argv", ["prepare", *words])
    runpy.run_module("monai_fewshot.apps.prepare", run_name="__main__")
    assert capsys.readouterr().out.strip() == str(tmp_path / "out")
    assert len(load_scans(tmp_path / "out", require_labels=True)) == 2
    assert load_class_names(tmp_path / "out") == {1: "liver", 3: "spleen"}


@pytest.mark.parametrize("name", command.COMMANDS)
@pytest.mark.parametrize("words", [["--sizes", "8,6"], ["--name", "chaos", "a", "b", "c", "d", "--odd"]])
def test_a_misspelled_option_does_nothing(name, words, source, tmp_path, monkeypatch):
    known = ["--output_dir", str(tmp_path / "out")] + ([] if name == "download" else ["--source", str(source)])
    with pytest.raises(SystemExit) as stop:
        command.main([name, *known, *words])
    assert stop.value.code == 2
    assert {path.name for path in tmp_path.iterdir()} == {"made", "source"}


@pytest.mark.parametrize("name", command.COMMANDS)
def test_help_names_every_argument(name, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main([name, "--help"])
    assert not stop.value.code
    text = "".join(capsys.readouterr()).lower()
    function = command.COMMANDS[name]
    assert all(argument in text for argument in function.__annotations__ if argument != "return")


def test_what_is_wrong_is_said_without_a_traceback(tmp_path):
    with pytest.raises(SystemExit, match=r"source .*absent does not exist") as stop:
        command.main(["decathlon", str(tmp_path / "absent"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    assert isinstance(stop.value.code, str)


def test_an_interruption_says_how_to_go_on(monkeypatch, capsys, tmp_path):
    def interrupted(source, output_dir):
        raise KeyboardInterrupt

    monkeypatch.setitem(command.COMMANDS, "folder", interrupted)
    with pytest.raises(SystemExit) as stop:
        command.main(["folder", "a", str(tmp_path)])
    assert stop.value.code == 130
    assert "Run the same command again to go on" in capsys.readouterr().err


def test_paths_may_look_like_numbers(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        make_case(tmp_path / "2019" / "images", name)
    (tmp_path / "2019" / "labels").mkdir()
    for file in (tmp_path / "2019" / "images").glob("*-label*"):
        file.rename(tmp_path / "2019" / "labels" / file.name.replace("-label", ""))
    for file in (tmp_path / "2019" / "images").glob("*-image*"):
        file.rename(file.with_name(file.name.replace("-image", "")))
    command.main(["folder", "2019", "2020", "--num_folds", "0", "--workers", "0"])
    assert capsys.readouterr().out.strip() == str(tmp_path / "2020")
