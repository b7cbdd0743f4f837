# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from monai_fewshot.apps.command.model_origin import ExampleOrigin, ModelOrigin, origin_of_example

ORIGIN = ModelOrigin("supervised", (ExampleOrigin("a", "0" * 64),), {1: "liver"}, 20.0, 0)


def test_what_is_written_is_read(tmp_path):
    assert ModelOrigin.read(tmp_path) is None
    ORIGIN.when_trained().write(tmp_path)
    assert ModelOrigin.read(tmp_path) == ORIGIN.when_trained()
    (tmp_path / "segment.json").write_text("{}")
    with pytest.raises(ValueError, match=r"segment.json does not tell what made the model \(KeyError"):
        ModelOrigin.read(tmp_path)


def test_minutes_and_seed_contradict_only_where_they_are_given():
    assert ORIGIN.contradictions(ORIGIN, None, None) == []
    assert ORIGIN.contradictions(ORIGIN, 60.0, 1) == [
        "minutes: the model has 20.0, now it is 60.0",
        "seed: the model has 0, now it is 1",
    ]


def test_an_example_is_its_content_whatever_it_is_called(tmp_path):
    hashes = {}
    for name, content in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).write_text(content)
        (tmp_path / "label").write_text("label")
        scan = {"name": name, "image": str(tmp_path / name), "label": str(tmp_path / "label")}
        hashes[name] = origin_of_example(scan).sha256
    assert hashes["a"] == hashes["b"] != hashes["c"]
    swapped = {"name": "a", "image": str(tmp_path / "label"), "label": str(tmp_path / "a")}
    assert origin_of_example(swapped).sha256 != hashes["a"]
