# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The whole benchmark on phantoms, by the commands at the head of its file."""

from __future__ import annotations

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from monai_fewshot.apps.benchmark.matrix.matrix_reading import read_matrix
from monai_fewshot.apps.bundles import WorksOn, bundle_folder, bundle_names, read_methods
from monai_fewshot.apps.phantom import make_phantom_lesions
from monai_fewshot.apps.prepare import prepare_images

pytestmark = pytest.mark.default_dtype
CONFIG = Path(__file__).parents[3] / "benchmarks" / "phantom.yaml"


def run(words, folder):
    variables, words = words[: "=" in words[0]], words["=" in words[0] :]
    environment = {**os.environ, **dict(word.split("=") for word in variables), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, *(str(CONFIG) if word == "benchmarks/phantom.yaml" else word for word in words[1:])]
    return subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_whole_benchmark_runs_at_toy_budget(tmp_path):
    commands = [shlex.split(line[1:]) for line in CONFIG.read_text().splitlines() if re.match(r"# .*python -m ", line)]
    assert len(commands) == 3
    for words in commands:
        done = run(words, tmp_path)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    output = tmp_path / yaml.safe_load(CONFIG.read_text())["output_dir"]
    text = (output / "leaderboard.md").read_text()
    assert "Failed" not in text
    assert "Not run yet" not in text
    titles = re.findall("^### (.*)", text, re.M)
    assert titles == [
        "All tables",
        "Phantom MR",
        "Phantom CT, setting 2",
        "Trained on Phantom MR, tested on Phantom CT",
    ]
    with open(output / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["trained_on"], row["tested_on"]) for row in rows} == {
        ("phantom_mr", "phantom_mr"),
        ("phantom_ct", "phantom_ct"),
        ("phantom_mr", "phantom_ct"),
    }
    html = (output / "leaderboard.html").read_text()
    assert html.count("by all methods") > 10
    again = run(commands[-1], tmp_path)
    assert again.returncode == 0
    assert "Nothing is left to do." in again.stdout


def test_the_full_benchmark_is_one_that_can_be_run(data_dir, tmp_path, monkeypatch):
    for folder in ("chaos_t2", "mscmr_bssfp", "sabs_ct", "acdc"):
        (tmp_path / folder).symlink_to(data_dir / folder)
    images = make_phantom_lesions(tmp_path / "images", num_images=6, size=24)
    for folder, class_name in (("ph2", "lesion"), ("kvasir_seg", "polyp")):
        prepare_images(images, tmp_path / folder, class_names=[class_name], size=24, workers=0)
    monkeypatch.setenv("DATA", str(tmp_path))
    full = read_matrix(CONFIG.with_name("full.yaml"))
    assert {data.title for data in full.datasets if data.all_classes == ("lesion",)} == {"PH2"}


def test_all_methods_are_in_both_benchmarks():
    full, toy = (yaml.safe_load(CONFIG.with_name(name).read_text())["methods"] for name in ("full.yaml", CONFIG.name))
    listed = {(method or {}).get("bundle", name).partition("/")[0] for name, method in full.items()}
    kinds = {name: {m.works_on for m in read_methods(bundle_folder(name)).values()} for name in bundle_names()}
    assert listed == {name for name, kind in kinds.items() if kind != {WorksOn.IMAGES}}
    assert toy.keys() == full.keys()
