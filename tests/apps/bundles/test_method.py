# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What bundles say of their methods."""

from __future__ import annotations

import json

import pytest

from monai_fewshot.apps.bundles import read_method, read_methods

CONFIGS = ("masks", "train", "evaluate", "inference", "labels", "slow")


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "mine" / "configs").mkdir(parents=True)
    for name in CONFIGS:
        (tmp_path / "mine" / "configs" / f"{name}.json").write_text("{}")
    return tmp_path / "mine"


@pytest.fixture
def content():
    plain = {"learns_from": "images", "works_on": "images", "steps": ["masks", "train", "evaluate", "inference"]}
    labels = {
        "title": "With labels",
        "learns_from": "all_labels",
        "steps": ["train", "evaluate"],
        "overrides": {"train": ["labels", "slow"]},
    }
    return {"name": "Mine", "method": {**plain, "extras": ["itk"], "variants": {"labels": labels}}}


def write(bundle, content):
    (bundle / "configs" / "metadata.json").write_text(json.dumps(content))
    return bundle


def test_steps_are_in_order_and_variants_say_what_differs(bundle, content):
    plain, labels = read_methods(write(bundle, content)).values()
    assert (plain.name, plain.title, plain.learns_from, plain.works_on) == ("mine", "Mine", "images", "images")
    assert list(plain.steps.items()) == [(name, (name,)) for name in ("masks", "train", "evaluate", "inference")]
    assert plain.training == ("masks", "train")
    assert (labels.name, labels.title, labels.learns_from) == ("mine/labels", "With labels", "all_labels")
    assert (labels.works_on, labels.extras) == (plain.works_on, ("itk",))
    assert list(labels.steps.items()) == [("train", ("train", "labels", "slow")), ("evaluate", ("evaluate",))]


def test_a_method_is_named_by_bundle_and_variant(bundle, content, monkeypatch):
    write(bundle, content)
    monkeypatch.chdir(bundle.parent)
    assert read_method("mine/labels") == read_method(f"{bundle}/labels")
    assert read_method("mine").name == read_method(str(bundle)).name == "mine"
    with pytest.raises(ValueError, match=r"mine has no variant label; did you mean labels\?"):
        read_method("mine/label")
    with pytest.raises(FileNotFoundError, match="there is no bundle mined;"):
        read_method("mined/labels")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m.pop("learns_from"), "method.learns_from: is missing; give text."),
        (lambda m: m.update(learns_from="image"), "method.learns_from: is 'image'; did you mean images?"),
        (lambda m: m.update(works_on="scan"), "method.works_on: is 'scan'; there are: images, slices, volumes."),
        (lambda m: m.pop("steps"), "method.steps: is missing; give a list."),
        (
            lambda m: m.update(steps=["train", "evalute"]),
            "method.steps: there is no configs/evalute.json; did you mean",
        ),
        (lambda m: m.update(overrides={"trian": ["slow"]}), "method.overrides.trian: is not known here; did you mean"),
        (lambda m: m.update(varaints={}), "method.varaints: is not known here; did you mean variants?"),
        (lambda m: m.update(extras="itk", title=3), "method.title: is 3; give text."),
        (lambda m: m.update(learns_from="nothing"), "method.learns_from: is nothing, but the steps are masks, train,"),
        (lambda m: m.update(steps=["evaluate"]), "method.learns_from: is images, but the steps are evaluate."),
        (
            lambda m: m["variants"]["labels"].update(overrides={"train": ["label"]}),
            "method.variants.labels.steps: there is no configs/label.json; did you mean labels?",
        ),
    ],
)
def test_mistakes_are_named_by_file_and_key(change, text, bundle, content):
    change(content["method"])
    with pytest.raises(ValueError, match=r"mine/configs/metadata\.json does not describe a method:\n") as caught:
        read_methods(write(bundle, content))
    assert any(line.strip().startswith(text) for line in str(caught.value).splitlines()[1:]), str(caught.value)


def test_what_is_no_metadata_is_refused(bundle):
    with pytest.raises(FileNotFoundError, match=r"no file .*metadata\.json"):
        read_methods(bundle)
    (bundle / "configs" / "metadata.json").write_text("{")
    with pytest.raises(ValueError, match=r"metadata\.json is not JSON"):
        read_methods(bundle)
    with pytest.raises(ValueError, match=r"method\.learns_from: is missing"):
        read_methods(write(bundle, {}))
