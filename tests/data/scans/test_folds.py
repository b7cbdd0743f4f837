# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import pytest

from monai_fewshot.data.scans.folds import Fold, cross_validation_folds, load_folds


def _write_set(folder, names, **content):
    content["training"] = [{"image": f"./{name}.nii.gz"} for name in names]
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(("count", "num_folds"), [(2, 2), (5, 5), (6, 3), (11, 4), (35, 5)])
def test_folds_cover_every_scan_once(count, num_folds):
    names = [f"s{i:02d}" for i in range(count)]
    folds = cross_validation_folds(reversed(names), num_folds)
    assert [name for fold in folds for name in fold.query] == names
    assert {len(fold.query) for fold in folds} <= {count // num_folds, -(-count // num_folds)}
    for fold, following in zip(folds, folds[1:] + folds[:1], strict=True):
        assert fold.support == following.query[:1]
        assert sorted([*fold.query, *fold.support, *fold.train]) == names


def test_uneven_parts_are_longer_first():
    folds = cross_validation_folds(list("gfedcba"), 3)
    assert [fold.query for fold in folds] == [("a", "b", "c"), ("d", "e"), ("f", "g")]
    assert folds[2] == Fold(2, ("f", "g"), ("a",), ("b", "c", "d", "e"))


def test_names_stay_plain_strings():
    assert {type(name) for fold in cross_validation_folds(["a", "b"], 2) for name in (*fold.query, *fold.support)} == {
        str
    }


@pytest.mark.parametrize("num_folds", [1, 4])
def test_impossible_number_of_folds(num_folds):
    with pytest.raises(ValueError, match=rf"num_folds is {num_folds}; 3 scans make at least 2 and at most 3"):
        cross_validation_folds(["a", "b", "c"], num_folds)


def test_repeated_name():
    with pytest.raises(ValueError, match="b occurs more than once"):
        cross_validation_folds(["a", "b", "b"], 2)


def test_folds_of_dataset_json_decide(tmp_path):
    folds = load_folds(_write_set(tmp_path, "abcd", folds=[{"query": ["d", "b"], "support": "a"}]))
    assert folds == [Fold(0, ("d", "b"), ("a",), ("c",))]


def test_a_fold_may_have_several_supports(tmp_path):
    folds = load_folds(_write_set(tmp_path, "abcd", folds=[{"query": ["d"], "support": ["a", "c"]}]))
    assert folds == [Fold(0, ("d",), ("a", "c"), ("b",))]


def test_a_fold_may_leave_scans_out_of_training(tmp_path):
    folds = load_folds(_write_set(tmp_path, "abcde", folds=[{"query": ["d"], "support": "a", "train": ["e", "b"]}]))
    assert folds == [Fold(0, ("d",), ("a",), ("e", "b"))]


def test_folds_are_made_where_dataset_json_has_none(tmp_path):
    assert load_folds(_write_set(tmp_path, "abcd"), num_folds=2) == cross_validation_folds("abcd", 2)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([{"query": ["a", "x"], "support": "b"}], "fold 0 names x, which 'training' does not list"),
        ([{"query": ["a"], "support": "b"}, {"query": ["a"], "support": "y"}], "fold 1 names y"),
        ([{"query": ["a", "b"], "support": "b"}], "fold 0 has its support b among its queries"),
        ([{"query": ["a", "a"], "support": "b"}], "fold 0 has a among its queries more than once"),
        ([{"query": ["a", "b"], "support": ["c", "b"]}], "fold 0 has its support b among its queries"),
        ([{"query": ["a"], "support": []}], "fold 0 is .*; expected"),
        ([{"query": "a", "support": "b"}], "fold 0 is .*; expected"),
        ([["a", "b"]], "fold 0 is .*; expected"),
        ([{"query": ["a"], "support": "b", "train": "c"}], "\"train\" of fold 0 is 'c'; expected a list of names"),
        ([{"query": ["a"], "support": "b", "train": ["x"]}], "fold 0 names x, which 'training' does not list"),
        ([{"query": ["a"], "support": "b", "train": ["b", "c"]}], "fold 0 trains on b, its query or support"),
        ({}, '"folds" is {}; expected a list'),
        ([], r'"folds" is \[\]; expected a list'),
    ],
)
def test_bad_folds_name_file_and_value(tmp_path, folds, message):
    with pytest.raises(ValueError, match=rf"dataset\.json: {message}"):
        load_folds(_write_set(tmp_path, "abc", folds=folds))


@pytest.mark.parametrize(("name", "num_folds"), [("chaos_t2", 5), ("mscmr_bssfp", 5), ("sabs_ct", 3)])
def test_published_folds(data_dir, name, num_folds):
    published = load_folds(data_dir / name)
    names = [*published[0].query, *published[0].support, *published[0].train]
    assert cross_validation_folds(names, num_folds) == published
