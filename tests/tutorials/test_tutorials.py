# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import papermill
import pytest

FOLDER = Path(__file__).parents[2] / "tutorials"
SMALL = {"max_epochs": 1, "epoch_length": 2, "num_volumes": 5, "volume_size": [64, 64, 12], "min_size": 50}
MOST_BYTES = 200_000


@pytest.mark.slow
def test_few_shot_from_one_scan_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_DATA_DIRECTORY", str(tmp_path / "data"))
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    notebook = papermill.execute_notebook(
        FOLDER / "few_shot_from_one_scan.ipynb",
        tmp_path / "executed.ipynb",
        parameters=SMALL,
        kernel_name="python3",
        cwd=FOLDER,
        progress_bar=False,
    )
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 6
    printed = "".join(output.get("text", "") for output in outputs)
    assert "same affine as the scan: True" in printed
    assert (tmp_path / "data" / "masks" / "phantom_001_seg.nii.gz").is_file()
    assert (tmp_path / "data" / "trained" / "report.html").is_file()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_have_the_sections_of_monais_tutorials(path):
    cells = nbformat.read(path, as_version=4).cells
    assert "Apache License" in cells[0].source
    headings = [line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    places = [headings.index(f"## Setup {name}") for name in ("environment", "imports", "data directory")]
    assert places == sorted(places)
    imports = next(cell for cell in cells if "print_config" in cell.source)
    assert imports.source.splitlines()[-1] == "print_config()"
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
    assert path.stat().st_size < MOST_BYTES
