# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import nbformat
import papermill
import pytest

pytestmark = pytest.mark.default_dtype
FOLDER = Path(__file__).parents[2] / "tutorials"
SMALL = {"max_epochs": 1, "epoch_length": 2, "num_volumes": 5, "volume_size": [64, 64, 12], "min_size": 50}
SMALL_IMAGES = {"max_epochs": 1, "epoch_length": 2, "num_images": 16, "image_size": [64, 64]}
SMALL_TASKS = {"max_epochs": 1, "epoch_length": 10}
SMALL_STUDIES = {
    "max_epochs": 1,
    "epoch_length": 2,
    "num_studies": 3,
    "volume_size": [64, 64, 12],
    "image_size": [64, 64],
}
LEAST_GAIN = 8
MOST_BYTES = 200_000


def execute(name, parameters, folder, monkeypatch):
    """Run a notebook; return what it printed and the number of its pictures."""
    monkeypatch.setenv("MONAI_DATA_DIRECTORY", str(folder / "data"))
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    notebook = papermill.execute_notebook(
        FOLDER / name,
        folder / "executed.ipynb",
        parameters=parameters,
        kernel_name="python3",
        cwd=FOLDER,
        progress_bar=False,
    )
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    return printed, sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_few_shot_from_one_scan_runs(tmp_path, monkeypatch):
    printed, pictures = execute("few_shot_from_one_scan.ipynb", SMALL, tmp_path, monkeypatch)
    assert pictures >= 6
    assert "same affine as the scan: True" in printed
    assert (tmp_path / "data" / "masks" / "phantom_001_seg.nii.gz").is_file()
    assert (tmp_path / "data" / "trained" / "report.html").is_file()


@pytest.mark.slow
def test_lesions_from_one_image_runs(tmp_path, monkeypatch):
    printed, pictures = execute("lesions_from_one_image.ipynb", SMALL_IMAGES, tmp_path, monkeypatch)
    assert pictures >= 6
    assert "3 images, after the example of lesion_004" in printed
    assert (tmp_path / "data" / "evaluation" / "report.html").is_file()
    masks = {path.name for path in (tmp_path / "data" / "masks").glob("[!.]*")}
    assert masks <= {"lesion_008.png", "lesion_012.png", "lesion_016.png"}


@pytest.mark.slow
def test_adapt_to_a_new_lesion_runs(tmp_path, monkeypatch):
    printed, pictures = execute("adapt_to_a_new_lesion.ipynb", SMALL_TASKS, tmp_path, monkeypatch)
    assert pictures == 5
    dice = {start: dice_by_step(printed, start) for start in ("meta-learned", "supervised", "random")}
    assert all(found[0] < min(found[1], found[5], found[20]) for found in dice.values())
    assert dice["meta-learned"][1] > dice["random"][1] + 20
    residuals = {line[:20].strip(): line.split()[-3] for line in printed.splitlines() if re.search(r"MAML|order", line)}
    assert residuals.keys() == {"first order", "MAML", "iMAML, proximal 2", "iMAML, proximal 10"}
    assert residuals["first order"] == residuals["MAML"] == "-"
    assert float(residuals["iMAML, proximal 2"]) > 0
    assert 0 < float(residuals["iMAML, proximal 10"]) < 0.5


@pytest.mark.slow
def test_from_one_annotated_slice_runs(tmp_path, monkeypatch):
    printed, pictures = execute("from_one_annotated_slice.ipynb", {}, tmp_path, monkeypatch)
    assert pictures == 5
    gain = float(re.search(r"gain over the exemplar alone: ([-\d.]+) points", printed)[1])
    assert gain > LEAST_GAIN
    assert "same affine as the scan: True" in printed
    stages = tmp_path / "data" / "trained" / "elsnet"
    assert {path.name for path in stages.glob("[!.]*")} == {"model.pt", "stage_1", "stage_2"}
    assert (tmp_path / "data" / "evaluation" / "stage_2" / "report.html").is_file()


@pytest.mark.slow
def test_from_one_scan_and_a_folder_runs(tmp_path, monkeypatch):
    settings = {"max_epochs": 3, "epoch_length": 20, "num_volumes": 6, "volume_size": [64, 64, 12]}
    printed, pictures = execute("from_one_scan_and_a_folder.ipynb", settings, tmp_path, monkeypatch)
    assert pictures == 3
    assert "unlabeled slices from iteration 30 on" in printed
    assert printed.count("epoch 3: liver") == 2
    assert (tmp_path / "data" / "evaluation" / "self-training" / "report.html").is_file()
    assert len(list((tmp_path / "data" / "masks").glob("phantom_*_seg.nii.gz"))) == 6
    cells = nbformat.read(tmp_path / "executed.ipynb", as_version=4).cells
    shown = [output["data"]["text/plain"] for cell in cells for output in cell.get("outputs", []) if "data" in output]
    has_viewer = importlib.util.find_spec("ipyniivue") is not None
    assert any("NiiVue" in text for text in shown) == has_viewer
    assert ("[notebook]" in printed) != has_viewer


@pytest.mark.slow
def test_from_dicom_to_dicom_seg_runs(tmp_path, monkeypatch):
    printed, pictures = execute("from_dicom_to_dicom_seg.ipynb", SMALL_STUDIES, tmp_path, monkeypatch)
    assert pictures == 3
    results = tmp_path / "data" / "results"
    names = {path.name.removesuffix("_seg.dcm") for path in results.glob("*.dcm")}
    assert len(names) == 3
    assert names == {path.stem for path in (results / "previews").iterdir()}
    assert (results / "index.html").is_file()
    found = re.findall(r"voxels, the same in (highdicom|pydicom): (\w+)", printed)
    assert {library for library, _ in found} == {"highdicom", "pydicom"}
    assert {same for _, same in found} == {"True"}
    assert "SimpleITK reads the frames that pydicom reads: True" in printed
    assert "refers to the images of its series: True" in printed
    assert re.findall(r"(\w+) found in \d+ texts: (.*)", printed) == [("patients", "none"), ("UIDs", "none")]


def dice_by_step(printed, start):
    """Read what the notebook printed of the Dice of a start, in percent by adaptation step."""
    (line,) = (line for line in printed.splitlines() if f"{start} weights,  Dice by step" in line)
    return {int(step): float(value) for step, value in re.findall(r"(\d+): ([\d.]+) %", line)}


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
