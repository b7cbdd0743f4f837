# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import pytest

from monai_fewshot.data import choose_folds, cross_validation_folds, hold_out, load_folds, training_scans


def _write_set(folder, names="abcdefghij", labels=True, **content):
    content["training"] = [
        {"image": f"./{n}.nii.gz", **({"label": f"./{n}_label.nii.gz"} if labels else {})} for n in names
    ]
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(("fold", "numbers"), [(None, [0, 1, 2, 3, 4]), (3, [3]), ([4, 0], [4, 0]), ((2,), [2])])
def test_folds_by_number(tmp_path, fold, numbers):
    _write_set(tmp_path)
    assert choose_folds(tmp_path, fold) == [load_folds(tmp_path)[number] for number in numbers]


def test_number_of_folds(tmp_path):
    _write_set(tmp_path)
    assert choose_folds(tmp_path, num_folds=2) == cross_validation_folds("abcdefghij", 2)


@pytest.mark.parametrize("fold", [5, -1, [0, 7], "0"])
def test_no_such_fold(tmp_path, fold):
    with pytest.raises(ValueError, match=r"fold is .*has 5 folds, 0 to 4\."):
        choose_folds(_write_set(tmp_path), fold)


def test_training_scans_of_a_fold_are_neither_its_queries_nor_its_support(tmp_path):
    _write_set(tmp_path)
    for fold in load_folds(tmp_path):
        scans = training_scans(tmp_path, fold.index)
        assert tuple(scan["name"] for scan in scans) == fold.train
        assert len(scans) == 7


def test_training_sees_labels_only_where_asked(tmp_path):
    _write_set(tmp_path)
    assert {tuple(sorted(scan)) for scan in training_scans(tmp_path)} == {("image", "name")}
    labelled = training_scans(tmp_path, 0, with_labels=True)
    assert all(scan["label"] == str(tmp_path / f"{scan['name']}_label.nii.gz") for scan in labelled)


def test_scans_without_labels_serve_unless_classes_are_excluded(tmp_path):
    _write_set(tmp_path, labels=False)
    assert len(training_scans(tmp_path)) == 10
    with pytest.raises(ValueError, match="10 of 10 scans have no label: a, b, c"):
        training_scans(tmp_path, with_labels=True)


def test_a_fold_that_leaves_nothing_to_train_on(tmp_path):
    _write_set(tmp_path, "ab")
    with pytest.raises(ValueError, match=r"Fold 1 of .* leaves no scan to train on: use fewer folds or more scans"):
        training_scans(tmp_path, 1, num_folds=2)


@pytest.mark.parametrize(("number", "parts"), [(1, ("abc", "d")), (3, ("a", "bcd")), (0, ("abcd", "abcd"))])
def test_hold_out(number, parts):
    assert hold_out("abcd", number) == (list(parts[0]), list(parts[1]))


@pytest.mark.parametrize("number", [4, 9, -1])
def test_impossible_hold_out(number):
    with pytest.raises(ValueError, match=rf"{number} of 4 scans cannot be held out .*or num_val_scans=0"):
        hold_out("abcd", number)
