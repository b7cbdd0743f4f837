# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import runpy
import sys

import pytest

from monai_fewshot.apps.bundles import bundle_folder, bundle_names, read_method
from monai_fewshot.apps.bundles.command import main


def test_all_bundles_and_variants_are_listed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bundles", "list"])
    runpy.run_module("monai_fewshot.apps.bundles", run_name="__main__")
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["bundle", "title", "learns", "from", "works", "on", "extras"]
    names = [line.split()[0] for line in lines]
    assert {name.partition("/")[0] for name in names} == set(bundle_names())
    for name, line in zip(names, lines, strict=True):
        method = read_method(name)
        assert line[header.index("title") :].startswith(f"{method.title} ")
        assert line[header.index("works on") :].split() == [method.works_on, *method.extras]


def test_a_copy_has_the_files_of_the_bundle_and_none_of_its_runs(tmp_path, monkeypatch, capsys):
    source = tmp_path / "mine"
    for file in ("configs/train.json", "docs/README.md", "models/fold0/model.pt", "eval/results.csv"):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_text(file)
    monkeypatch.chdir(tmp_path)
    main(["copy", "mine", "--output_dir", "2026"])
    assert capsys.readouterr().out.strip() == "2026"
    copied = {path.relative_to(tmp_path / "2026").as_posix() for path in (tmp_path / "2026").rglob("*.*")}
    assert copied == {"configs/train.json", "docs/README.md"}
    (tmp_path / "2026" / "configs" / "train.json").write_text("changed")
    with pytest.raises(SystemExit, match="2026 is there already: remove it, or name another output_dir"):
        main(["copy", "panet", "2026"])
    assert (tmp_path / "2026" / "configs" / "train.json").read_text() == "changed"


def test_a_copy_is_a_bundle(tmp_path):
    main(["copy", "panet", str(tmp_path / "mine")])
    assert read_method(str(tmp_path / "mine" / "annotated")).steps == read_method("panet/annotated").steps
    for path in (bundle_folder("panet") / "configs").iterdir():
        assert (tmp_path / "mine" / "configs" / path.name).read_bytes() == path.read_bytes()


def test_an_unknown_bundle_is_not_copied(tmp_path):
    with pytest.raises(SystemExit, match=r"there is no bundle pannet; did you mean panet\?"):
        main(["copy", "pannet", str(tmp_path / "mine")])
    assert not (tmp_path / "mine").exists()
