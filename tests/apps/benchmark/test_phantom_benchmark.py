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

import pytest
import yaml

from monai_fewshot.apps.benchmark import BUNDLES
from monai_fewshot.apps.benchmark.matrix_reading import read_matrix

CONFIG = BUNDLES.parent / "benchmarks" / "phantom.yaml"


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
    assert len(re.findall("^### ", text, re.M)) == 4
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


def test_the_full_benchmark_is_one_that_can_be_run(data_dir, monkeypatch):
    monkeypatch.setenv("DATA", str(data_dir))
    matrix = read_matrix(CONFIG.with_name("full.yaml"))
    assert {method.bundle for method in matrix.methods} >= {"ssl_alpnet", "panet", "se_net", "elsnet"}
