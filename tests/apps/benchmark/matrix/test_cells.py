# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What bundles are told in each cell."""

from __future__ import annotations

import pytest
from benchmark_cells import make_config

from monai_fewshot.apps.benchmark.matrix.cells import planned_cells
from monai_fewshot.apps.benchmark.matrix.matrix_reading import read_matrix


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    return read_matrix(make_config(tmp_path_factory.mktemp("benchmark"))[0])


def cells(matrix, method, test="mr", setting=1, train=None):
    rows = [row for row in matrix.rows() if (row.method.name, row.test.name, row.setting) == (method, test, setting)]
    (row,) = [row for row in rows if row.train.name == (train or test)]
    return list(planned_cells(matrix, row))


def test_nothing_is_hidden_in_setting_1(matrix):
    first, *rest = cells(matrix, "images")
    assert [(cell.fold, cell.seed) for cell in (first, *rest)] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    settings = first.training().settings
    assert settings["dataset_dir"] == matrix.datasets[0].path
    assert settings["ckpt_dir"] == matrix.output_dir / "cells/images/mr/setting1/all/fold0_seed0/model"
    assert settings["resume"] is True
    assert {"exclude_classes", "classes", "cache_dir", "max_epochs"} & settings.keys() == set()
    assert "classes" not in first.evaluation().settings
    assert first.evaluation().settings["checkpoint"] == settings["ckpt_dir"] / "model.pt"
    assert first.evaluation().settings["output_dir"] == first.folder


def test_a_network_for_each_group_in_setting_2(matrix):
    found = cells(matrix, "images", setting=2)[:2]
    for cell, group in zip(found, (["liver", "spleen"], ["right kidney", "left kidney"]), strict=True):
        assert cell.training().settings["exclude_classes"] == group
        assert sorted(cell.evaluation().settings["classes"]) == sorted(group)
    assert found[1].training_name == "images/mr/setting2/right_kidney+left_kidney/fold0_seed0"


@pytest.mark.parametrize("setting", [1, 2])
def test_methods_that_learn_from_other_classes_see_those(setting, matrix):
    cell = cells(matrix, "others", setting=setting)[0]
    settings = cell.training().settings
    assert settings["classes"] == ["right kidney", "left kidney"]
    assert settings.get("exclude_classes") == (["liver", "spleen"] if setting == 2 else None)
    assert cell.tested == ("liver", "spleen")


def test_settings_are_the_same_to_those_that_see_the_tested_classes(matrix):
    one, two = (cells(matrix, "exemplar", setting=setting) for setting in (1, 2))
    assert [cell.name for cell in one] == [cell.name for cell in two]
    settings = one[0].training(7).settings
    assert settings["classes"] == ["liver", "right kidney", "left kidney", "spleen"]
    assert (settings["epoch_length"], settings["max_epochs"]) == (4, 2)


def test_a_method_without_training_has_one_seed(matrix):
    found = cells(matrix, "plain", "ct")
    assert [(cell.fold, cell.seed, cell.training()) for cell in found] == [(0, 0, None), (1, 0, None)]
    assert found[0].evaluation().settings["image_size"] == [4, 4]
    assert found[0].evaluation().settings["classes"] == ["spleen", "liver"]


def test_cells_across_data_sets_share_the_training(matrix):
    within, across = cells(matrix, "images", "ct")[0], cells(matrix, "images", "mr", train="ct")[0]
    assert within.training_name == across.training_name
    assert across.name == f"{within.training_name}/on_mr"
    settings = across.evaluation().settings
    assert settings["dataset_dir"] == matrix.datasets[0].path
    assert settings["classes"] == ["liver", "spleen"]
    assert settings["checkpoint"] == within.evaluation().settings["checkpoint"]


def test_places_make_no_other_cell_but_settings_data_and_budget_do(matrix, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    moved = read_matrix(make_config(folder)[0])
    assert cells(matrix, "exemplar")[0].identity() == cells(moved, "exemplar")[0].identity()
    path, content = make_config(folder)
    content["methods"]["exemplar"]["budget"] = {"minutes": 5}
    path, _ = make_config(folder, methods=content["methods"])
    other = cells(read_matrix(path), "exemplar")[0].identity()
    assert {key for key, value in other.items() if value != cells(moved, "exemplar")[0].identity()[key]} == {"budget"}
