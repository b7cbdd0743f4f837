# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""YAML files of the benchmark: what is read from them, and what is said of mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from benchmark_cells import CLASSES, make_config

from monai_fewshot.apps.benchmark.matrix.matrix_reading import read_matrix


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    make_config(folder)
    return folder


def without(content, bundle, setting):
    """Copy a made-up bundle whose training lacks a setting, and return its folder."""
    source = Path(content["methods"]["images"]["bundle"]).with_name(bundle)
    copy = shutil.copytree(source, source.parents[1] / f"without_{setting}" / bundle, dirs_exist_ok=True)
    path = copy / "configs" / "train.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != setting}))
    return str(copy)


def changed(folder, change):
    """The problems of a file, or its matrix."""
    path, content = make_config(folder)
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return read_matrix(path)


def test_a_file_is_read(folder, monkeypatch):
    monkeypatch.setenv("WHERE", str(folder))
    matrix = changed(folder, lambda c: c["datasets"]["ct"].update(path="$WHERE/ct"))
    assert [method.name for method in matrix.methods] == ["images", "others", "exemplar", "plain"]
    assert matrix.methods[0].title == "From images"
    assert matrix.methods[1].method.name == "exemplar/others"
    assert matrix.methods[1].learns_from == "other_classes"
    assert matrix.methods[2].budget.settings(7) == {"epoch_length": 4, "max_epochs": 2}
    assert not matrix.methods[3].is_trained
    mr, ct = matrix.datasets
    assert (mr.classes, ct.classes) == (tuple(CLASSES), ("spleen", "liver"))
    assert ct.path == folder / "ct"
    assert mr.folds == (0, 1)
    assert mr.fingerprint != ct.fingerprint
    assert matrix.across == (("ct", "mr"),)


def test_rows_are_of_all_that_belongs_together(folder):
    rows = [(r.method.name, r.train.name, r.test.name, r.setting, r.classes) for r in changed(folder, id).rows()]
    every, two = tuple(CLASSES), ("spleen", "liver")
    names = ("images", "others", "exemplar", "plain")
    assert rows[:8] == [(name, "mr", "mr", setting, every) for setting in (1, 2) for name in names]
    assert rows[8:11] == [(name, "ct", "ct", 1, two) for name in ("images", "exemplar", "plain")]
    assert rows[11:] == [(name, "ct", "mr", 1, ("liver", "spleen")) for name in ("images", "exemplar")]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c.update(method={}), "method: is not known here; did you mean methods?"),
        (
            lambda c: c["methods"]["exemplar"].update(bundle="elsnte"),
            "methods.exemplar.bundle: there is no bundle elsnte; did you mean elsnet?",
        ),
        (
            lambda c: c["methods"]["others"].update(bundle=c["methods"]["others"]["bundle"][:-1]),
            "methods.others.bundle: exemplar has no variant other; did you mean others?",
        ),
        (
            lambda c: c["methods"]["images"].update(bundle="masksplit"),
            "methods.images.bundle: masksplit works on images by saliency, train, evaluate, inference; name",
        ),
        (
            lambda c: c["methods"]["images"].update(train={"imagesize": 3}),
            "methods.images.train: images has no setting 'imagesize' in train.json; did you mean image_size?",
        ),
        (
            lambda c: c["methods"]["images"].update(for_dataset={"mr": {"evaluate": {"batch": 3}}}),
            "methods.images.for_dataset.mr.evaluate: images has no setting 'batch' in evaluate.json; there are:",
        ),
        (
            lambda c: c["methods"]["images"].update(for_dataset={"xy": {}}),
            "methods.images.for_dataset: there is no data",
        ),
        (
            lambda c: c["methods"].update(again=c["methods"]["images"]),
            "methods.again.title: 'From images' is that of images too; give each row its own.",
        ),
        (
            lambda c: c["methods"].update({"a b": {"bundle": "ssl_alpnet"}}),
            "methods.a b: the name becomes a folder's",
        ),
        (
            lambda c: c["methods"]["plain"].update(for_dataset={"mr": {"train": {"image_size": 4}}}),
            "methods.plain.for_dataset.mr.train: is of no use to ",
        ),
        (
            lambda c: c["methods"]["images"].update(bundle=without(c, "exemplar", "classes")),
            "methods.images.train: exemplar has no setting 'classes' in train.json",
        ),
        (
            lambda c: c["methods"]["images"].update(budget={"iteration": 3}),
            "methods.images.budget.iteration: is not known",
        ),
        (
            lambda c: c["methods"]["images"].update(budget={"epochs": 3}),
            "methods.images.budget: give either iterations",
        ),
        (lambda c: c["datasets"]["mr"].update(path="/no/where"), "datasets.mr.path: "),
        (
            lambda c: c["datasets"]["mr"].update(path="$UNSET_VARIABLE/x"),
            "datasets.mr.path: $UNSET_VARIABLE/x has a var",
        ),
        (
            lambda c: c["datasets"]["mr"].update(folds=[0, 7]),
            "datasets.mr.folds: there is no fold [7]; the data set has",
        ),
        (
            lambda c: c["methods"]["images"].update(bundle=without(c, "images", "exclude_classes")),
            "methods.images.train: images has no setting 'exclude_classes' in train.json",
        ),
        (lambda c: c["datasets"]["mr"].update(settings=[3]), "datasets.mr.settings: there is no setting [3]"),
        (lambda c: c["datasets"]["ct"].update(settings=[2]), "datasets.ct.groups: setting 2 needs them"),
        (
            lambda c: c["datasets"]["mr"].update(groups=[["liver"]]),
            "datasets.mr.groups: must hold each tested class once",
        ),
        (lambda c: c["datasets"]["ct"].update(classes=["lever"]), "datasets.ct.classes: classes: 'lever' not among"),
        (
            lambda c: c["methods"]["others"].update(datasets=["ct"]),
            "datasets.ct.groups: others learns from other classes",
        ),
        (lambda c: c["across"][0].update(test="pet"), "across.0.test: there is no data set 'pet'"),
        (
            lambda c: c["across"].append({"train": "mr", "test": "mr"}),
            "across.1.test: is the data set that is trained on",
        ),
        (lambda c: c.update(seeds="many"), "seeds: is 'many'; give a list."),
        (
            lambda c: c.update(seeds=[0, "one"]),
            "seeds: is [0, 'one']; give a list of which each item is a whole number.",
        ),
        (lambda c: c.update(parallel=0), "parallel: is 0; give 1 or more."),
        (lambda c: c.update(reference="image"), "reference: there is no method 'image'; did you mean images?"),
        (lambda c: c.update(methods={}), "methods: is empty; name at least one."),
    ],
)
def test_mistakes_are_named_by_their_entry(change, text, folder):
    with pytest.raises(ValueError, match=r"benchmark\.yaml cannot be run, and nothing was:\n") as caught:
        changed(folder, change)
    assert any(line.strip().startswith(text) for line in str(caught.value).splitlines()[1:]), str(caught.value)


def test_all_mistakes_are_told_at_once(folder):
    def change(content):
        content["methods"]["images"].update(bundle="nothing")
        content["datasets"]["mr"].update(folds=[7])

    with pytest.raises(ValueError, match=r"(?s)methods\.images\.bundle.*datasets\.mr\.folds"):
        changed(folder, change)


@pytest.mark.parametrize(("text", "message"), [("a: [", "is not YAML"), ("- a", "must be a mapping .* but is list")])
def test_what_is_no_mapping_is_refused(text, message, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_matrix(path)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_matrix(Path("no.yaml"))
