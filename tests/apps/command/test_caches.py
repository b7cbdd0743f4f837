# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
from dicom_files import write_series
from typer.testing import CliRunner

from monai_fewshot.apps.command.cli import app
from monai_fewshot.data import find_series
from monai_fewshot.data.dicom import tree_headers
from monai_fewshot.transforms import RandomRectangleLabels


def _run(*words):
    result = CliRunner().invoke(app, ["cache", *map(str, words)])
    return result.exit_code, result.output


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Two caches of pseudo-labels, other files beside them, and cached headers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tree_headers, "CACHED_FROM", 3)
    for number, folder in enumerate(("masks/model/cache", "masks/model/cache", "other")):
        RandomRectangleLabels(cache_dir=tmp_path / folder)(np.random.default_rng(number).random((1, 40, 40)))
    np.savez(tmp_path / "masks" / "cases.npz", image=np.zeros(3))
    (tmp_path / "other" / "notes.txt").write_text("keep")
    write_series(tmp_path / "archive")
    find_series(tmp_path / "archive")
    return tmp_path


def test_how_much_room_pseudo_labels_take(caches):
    code, output = _run(caches / "masks", caches / "masks" / "model", caches / "other")
    assert code == 0
    first, second = output.splitlines()
    size = sum(file.stat().st_size for file in (caches / "masks" / "model" / "cache").iterdir()) / 1e6
    assert first == f"2 file(s) of pseudo-labels, {size:.1f} MB, in {caches / 'masks' / 'model' / 'cache'}"
    assert second.startswith("1 file(s) of pseudo-labels")


def test_clearing_takes_what_a_cache_wrote_and_nothing_else(caches):
    code, output = _run(caches / "masks", caches / "other", "--clear")
    assert code == 0
    assert output.startswith("Removed 2 file(s) of pseudo-labels")
    left = sorted(file.name for folder in ("masks", "other") for file in (caches / folder).rglob("*") if file.is_file())
    assert left == ["cases.npz", "notes.txt"]
    assert len(list((caches / "home").rglob("*.json.gz"))) == 1
    assert _run(caches / "masks", caches / "other") == (0, "No cache was found.\n")


def test_without_folders_it_is_about_headers_of_dicom_files(caches):
    assert _run()[1].startswith("1 file(s) of DICOM headers, 0.0 MB, in ")
    assert _run("--clear")[1].startswith("Removed 1 file(s) of DICOM headers")
    assert not list((caches / "home").rglob("*.json.gz"))
    assert len(list((caches / "other").glob("*.npz"))) == 1


def test_a_folder_that_does_not_exist(caches):
    code, output = _run(caches / "nowhere")
    assert code == 2
    assert f"No such folder: {caches / 'nowhere'}" in output
