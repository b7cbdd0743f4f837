# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_fewshot.data.scans.class_numbers import class_numbers, slices_with_classes
from monai_fewshot.data.scans.scan_folder import load_class_names, load_scans

CLASS_NAMES = {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}


def _any_by_loop(label, classes):
    volume = label.reshape(label.shape[-3:])
    return [
        any(int(volume[h, w, d]) in classes for h in range(volume.shape[0]) for w in range(volume.shape[1]))
        for d in range(volume.shape[2])
    ]


@pytest.mark.parametrize("shape", [(1, 5, 4, 7), (5, 4, 7), (1, 5, 4, 1)])
@pytest.mark.parametrize("classes", [[1], (2, 3), [1, 2, 3, 4], [9], []])
@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor, MetaTensor, lambda label: label.astype(np.float32)])
def test_slices_equal_a_plain_loop(shape, classes, convert):
    generator = np.random.default_rng(0)
    label = (generator.random(shape) < 0.1) * generator.integers(0, 5, shape)
    found = slices_with_classes(convert(label), classes)
    assert found.tolist() == _any_by_loop(label, classes)


def test_output_follows_the_kind_of_input():
    label = np.zeros((2, 2, 3))
    assert slices_with_classes(label, [1]).dtype == np.bool_
    tensor = slices_with_classes(MetaTensor(label), [1])
    assert type(tensor) is torch.Tensor
    assert tensor.dtype == torch.bool


def test_any_class_excludes_not_all():
    label = np.zeros((2, 2, 4), dtype=np.uint8)
    label[0, 0] = [0, 1, 2, 1]
    label[1, 1] = [0, 0, 0, 2]
    assert slices_with_classes(label, [1, 2]).tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    ("classes", "numbers"), [("Liver", (1,)), (4, (4,)), (["spleen", 1], (4, 1)), (["LEFT KIDNEY"], (3,)), ([], ())]
)
def test_class_numbers(classes, numbers):
    assert class_numbers(CLASS_NAMES, classes) == numbers


def test_numbers_serve_where_classes_are_not_named():
    assert class_numbers({}, [2, 7]) == (2, 7)


def test_upper_and_lower_case_tell_classes_apart():
    names = {1: "Kidney", 2: "kidney"}
    assert class_numbers(names, ["kidney", "Kidney"]) == (2, 1)
    with pytest.raises(ValueError, match=r"'KIDNEY' is the name of several .*1 Kidney, 2 kidney\): give their numbers"):
        class_numbers(names, "KIDNEY")


def test_a_name_of_two_classes_is_refused():
    with pytest.raises(ValueError, match=r"'kidney' is the name of several classes .*2 kidney, 3 kidney"):
        class_numbers({1: "liver", 2: "kidney", 3: "kidney"}, ["liver", "kidney"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ('{"1": "liver", "2": "kidney", "3": "kidney"}', "names classes alike: 2 kidney, 3 kidney"),
        ('{"1": "liver", "1": "spleen"}', "the key '1' stands there twice"),
    ],
)
def test_classes_that_are_doubled_in_a_data_set(tmp_path, labels, message):
    (tmp_path / "dataset.json").write_text(f'{{"labels": {labels}}}')
    with pytest.raises(ValueError, match=rf"dataset\.json.*{message}"):
        load_class_names(tmp_path)


@pytest.mark.parametrize(
    ("names", "classes", "message"),
    [
        (CLASS_NAMES, ["liver", "kidney", 9], "'kidney', 9 not among .*: 1 liver, 2 right kidney, 3 left kidney"),
        (CLASS_NAMES, 0, "0 not among"),
        ({}, ["liver", 1], "'liver' not among .*none are named"),
        ({}, [0], "0 not among"),
    ],
)
def test_unknown_classes(names, classes, message):
    with pytest.raises(ValueError, match=message):
        class_numbers(names, classes)


def test_published_counts_of_chaos(data_dir):
    names = load_class_names(data_dir / "chaos_t2")
    labels = [
        np.asarray(nibabel.load(scan["label"]).dataobj)
        for scan in load_scans(data_dir / "chaos_t2", require_labels=True)
    ]
    assert sum(label.shape[-1] for label in labels) == 718

    def dropped(classes):
        return sum(int(slices_with_classes(label, class_numbers(names, classes)).sum()) for label in labels)

    assert dropped(["left kidney", "right kidney"]) == 324
    assert dropped(["liver", "spleen"]) == 463
    assert dropped(list(names.values())) == 558
    held = [np.stack([slices_with_classes(label, [number]) for number in names]) for label in labels]
    assert sum(int(rows.all(axis=0).sum()) for rows in held) == 88
