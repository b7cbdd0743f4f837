# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The comparison of meta-learning with fine-tuning: what it plans, and its table. Nothing is trained."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from bundle_settings import unknown_settings

from monai_fewshot.apps.phantom import make_phantom_lesions
from monai_fewshot.data import load_image_set

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("meta_learning")


@pytest.fixture
def arguments(benchmark, tmp_path):
    sets = [str(make_phantom_lesions(tmp_path / name, 3, 32)) for name in ("lesions", "polyps")]
    words = ["--lesions", sets[0], "--polyps", sets[1], "--output_dir", str(tmp_path / "out"), "--seeds", "2"]
    return benchmark.parse_arguments([*words, "--image_size", "16"])


def test_it_trains_on_one_set_and_tests_on_the_other(benchmark, arguments):
    folders = benchmark.prepare(arguments)
    cells = benchmark.planned(arguments, folders)
    assert len(cells) == 2 * 2 * len(benchmark.METHODS)
    for key, cell in cells.items():
        trained = [step.settings["dataset_dir"].name for step in cell.steps if "train" in step.configs]
        tested = [step.settings["dataset_dir"].name for step in cell.steps if step.configs == ("evaluate",)]
        source, target = key.direction.split(" to ")
        assert trained == [source]
        assert tested == [target] * 3
        assert [step.settings["shots"] for step in cell.steps[-3:]] == [5, 10, 20]
    for source, _ in folders.values():
        images = load_image_set(source, require_labels=True).images
        assert len(images) == 3


def test_every_setting_is_one_of_the_bundle_and_adaptation_is_the_same_for_all(benchmark, arguments):
    cells = benchmark.planned(arguments, benchmark.prepare(arguments))
    adaptations = set()
    for cell in cells.values():
        for step in cell.steps:
            assert unknown_settings(step) == []
            names = ("inner_steps", "inner_lr", "proximal")
            adaptations.add(tuple(step.settings.get(name) for name in names))
    assert adaptations == {(5, 0.1, None), (None, None, None)}, "evaluation takes them from the checkpoint"


def test_meta_training_starts_from_the_supervised_weights_of_its_seed(benchmark, arguments):
    cells = benchmark.planned(arguments, benchmark.prepare(arguments))
    for key, cell in cells.items():
        supervised = cells[key._replace(method=benchmark.SUPERVISED)]
        if "MAML" in key.method:
            assert cell.steps[0].settings["weights"] == supervised.steps[0].settings["ckpt_dir"] / "model.pt"
            assert cell.steps[0].settings["seed"] == key.seed


def test_the_table_has_means_over_seeds_and_paired_gains(benchmark, arguments):
    cells = benchmark.planned(arguments, benchmark.prepare(arguments))
    for key, cell in cells.items():
        if key.direction != "polyps to lesions" or key.method not in ("MAML", benchmark.SUPERVISED):
            continue
        dice = 0.5 + 0.1 * key.seed + (0.04 + 0.02 * key.seed) * (key.method == "MAML")
        row = {"dice": dice, "hd95": 10.0}
        cell.folder.mkdir(parents=True)
        shots = {name: {"episodes": {"mean": row}} for name in cell.evaluations}
        (cell.folder / "cell.json").write_text(json.dumps({"overall": row, "evaluations": shots, "minutes": 1.5}))
    lines = benchmark.table(arguments, cells).splitlines()
    maml = next(line for line in lines if "| MAML |" in line).split(" | ")
    assert maml[2:4] == ["2", "60.0 ± 8.5 / 60.0 ± 8.5 / 60.0 ± 8.5"]
    assert maml[5:7] == ["+5.0 ± 1.4", "75.6 / 77.3 / 79.6 |"]
    assert "4 of 24 cells, 1.5 min each" in lines[-1]
