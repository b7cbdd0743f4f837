# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The ablation of exemplar learning: what it plans, and its table. Nothing is trained."""

from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest
from bundle_settings import unknown_settings

from monai_fewshot.apps.phantom import make_phantom_dataset
from monai_fewshot.data import load_folds, load_scans

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("exemplar_learning")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in ("acdc", "abdomen"):
        make_phantom_dataset(folder / name, 5, (40, 32, 8))
    return folder


@pytest.fixture
def arguments(benchmark, data, tmp_path):
    words = ["--dataset_dirs", str(data / "acdc"), str(data / "abdomen"), "--seeds", "2"]
    return benchmark.parse_arguments([*words, "--output_dir", str(tmp_path / "out")])


@pytest.fixture
def cells(benchmark, arguments):
    return benchmark.planned(arguments, benchmark.prepare(arguments))


def trainings(cell):
    return {step.settings["ckpt_dir"].name: step.settings for step in cell.steps if step.configs == ("train",)}


def test_scans_of_unequal_size_are_cut_about_their_center(benchmark, arguments, monkeypatch, data):
    monkeypatch.setattr(benchmark, "CUT", {"acdc": 36})
    folders = benchmark.prepare(arguments)
    assert folders["abdomen"] == data / "abdomen"
    scans = {folder: load_scans(folder, require_labels=True) for folder in (data / "acdc", folders["acdc"])}
    for before, after in zip(*scans.values(), strict=True):
        assert before["name"] == after["name"]
        for key in ("image", "label"):
            old, new = (np.asarray(nibabel.load(scan[key]).dataobj) for scan in (before, after))
            assert new.shape == (36, 36, 8)
            np.testing.assert_array_equal(new[:, 2:34], old[2:38])
            assert not new[:, :2].any()
            assert new.dtype == old.dtype
    assert load_folds(folders["acdc"]) == load_folds(data / "acdc")


def test_every_setting_is_one_of_its_bundle(cells):
    steps = [step for cell in cells.values() for step in cell.steps if step.configs != ("copy",)]
    assert {name for step in steps for name in unknown_settings(step)} == set()


def test_each_row_turns_off_what_it_says_and_nothing_else(benchmark, cells):
    rows = {}
    for key, cell in cells.items():
        if key.stage != benchmark.SSL_ALPNET and (key.data, key.seed) == ("acdc", 1):
            rows |= trainings(cell)
    parts = {name: ("synthesis" not in row, row["contrast_weight"] > 0, row["rounds"]) for name, row in rows.items()}
    assert parts == {
        "exemplar_only": (False, False, 0),
        "contrast_no_synthesis": (False, True, 0),
        "synthesis": (True, False, 0),
        "synthesis_black_and_organ-free_backgrounds": (True, False, 0),
        "synthesis_free_arrangement": (True, False, 0),
        "synthesis_five_annotated_slices": (True, False, 0),
        "synthesis_contrast_in_stage_1": (True, True, 0),
        "all_but_synthesis": (False, True, 1),
        "all_but_contrast_in_stage_1": (True, True, 1),
        "all_but_contrast_in_stage_2": (True, False, 1),
        "all": (True, True, 1),
    }
    own = {"synthesis", "synthesis#arrangement", "synthesis#black_prob", "backgrounds", "num_support_slices"}
    own |= {"contrast_weight", "rounds", "ckpt_dir"}
    shared = {json.dumps({k: v for k, v in row.items() if k not in own}, default=str) for row in rows.values()}
    assert len(shared) == 1
    assert json.loads(shared.pop())["seed"] == 1


def test_second_stages_go_on_from_the_first_stage_of_their_row(benchmark, cells):
    for key, cell in cells.items():
        if key.stage == benchmark.SSL_ALPNET:
            continue
        first = next(settings for settings in trainings(cell).values() if settings["rounds"] == 0)
        begun = set()
        for step in cell.steps:
            if step.configs == ("copy",):
                assert step.settings["source"] == first["ckpt_dir"] / "stage_1"
                begun.add(step.settings["target"].parent)
            elif step.configs == ("train",) and step.settings["rounds"]:
                assert step.settings["ckpt_dir"] in begun
                assert step.settings["resume"]


def test_a_copy_can_be_repeated(benchmark, tmp_path):
    source, target = tmp_path / "a b" / "stage_1", tmp_path / "c" / "stage_1"
    source.mkdir(parents=True)
    (source / "model.pt").write_bytes(b"weights")
    step = benchmark.CopyFirstStage("elsnet", ("copy",), {"source": source, "target": target})
    for _ in range(2):
        subprocess.run(step.command(), check=True)
    assert (target / "model.pt").read_bytes() == b"weights"


def test_ssl_alpnet_has_the_same_scans(benchmark, cells):
    for key, cell in cells.items():
        if key.stage == benchmark.SSL_ALPNET:
            other = cells[key._replace(stage="both")]
            for step in (*cell.steps, *other.steps):
                if step.configs != ("copy",):
                    assert step.settings["dataset_dir"] == cell.steps[0].settings["dataset_dir"]
                    assert step.settings["fold"] == 0


def test_the_table_has_means_over_seeds_and_paired_gains(benchmark, arguments, cells):
    for key, cell in cells.items():
        if key.data != "acdc" or key.stage not in ("exemplar", "both"):
            continue
        result = {"overall": {}, "by_class": {}, "minutes": 3.0, "evaluations": {}}
        for row, evaluation in benchmark.rows_of(key.stage).items():
            dice = 0.2 + 0.1 * key.seed + (row == "all") * (0.2 + 0.02 * key.seed)
            names = ("liver", "spleen", "left kidney", "right kidney", "mean")
            figures = {name: {"dice": dice, "hd95": 10.0 + key.seed, "undefined_hd95": key.seed} for name in names}
            result["evaluations"][evaluation] = {"alpnet": figures, "whole_volume": figures}
        cell.folder.mkdir(parents=True)
        (cell.folder / "cell.json").write_text(json.dumps(result))
    text = benchmark.table(arguments, cells)
    row = next(line for line in text.splitlines() if line.startswith("| all |"))
    columns = [column.strip() for column in row.strip("|").split("|")]
    assert columns[:3] == ["all", "2", "46.0 ± 8.5"]
    assert columns[-4:] == ["+21.0 ± 1.4", "10.5 ± 0.7, 1 undefined", "46.0 ± 8.5", "41.0"]
    assert "4 of 32 cells of one to three networks, 3.0 min each" in text
    assert text.index("**acdc**") < text.index("**abdomen**")
