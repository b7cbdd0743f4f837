# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Command lines that are read whole before anything is done."""

from __future__ import annotations

import runpy
import sys

import pytest

from monai_fewshot.apps.benchmark import command as benchmark
from monai_fewshot.apps.fire_calls import fire_calls


def tell(word: str, number: int = 1, folder: str | None = None):
    return word, number, folder


@pytest.mark.parametrize("commands", [tell, {"tell": tell}])
def test_words_stay_words_and_numbers_become_numbers(commands):
    words = ["tell"] * isinstance(commands, dict) + ["7", "--number", "3"]
    (call,) = fire_calls(commands, words, "program")
    assert call() == ("7", 3, None)
    (call,) = fire_calls(tell, ["--word=a", "--folder=12"], "program")
    assert call() == ("a", 1, "12")


@pytest.mark.parametrize(
    ("words", "code"), [(["a", "--nmuber", "3"], 2), (["a", "b", "c", "d"], 2), (["a", "--help"], 0)]
)
def test_what_is_not_understood_and_help_do_nothing(words, code):
    done = []

    def function(word: str, number: int = 1, folder: str | None = None):
        done.append(word)

    with pytest.raises(SystemExit) as ended:
        fire_calls(function, words, "program")
    assert ended.value.code == code
    assert not done


@pytest.mark.parametrize("last", ["--help", "--num_volume"])
@pytest.mark.parametrize("kind", [[], ["studies"]])
def test_phantoms_are_not_made_beside_help_or_a_misspelled_option(kind, last, tmp_path, monkeypatch):
    words = [*kind, "--output_dir", str(tmp_path / "made"), last, *["3"] * (last != "--help")]
    monkeypatch.setattr(sys, "argv", ["phantom", *words])
    with pytest.raises(SystemExit):
        runpy.run_module("monai_fewshot.apps.phantom", run_name="__main__")
    assert not (tmp_path / "made").exists()


def test_a_benchmark_is_not_run_with_a_misspelled_option(monkeypatch):
    monkeypatch.setattr(benchmark, "read_matrix", lambda path: pytest.fail("it was read"))
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["--config", "file.yaml", "--onyl", "ssl_alpnet"])
    assert ended.value.code == 2
