# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from monai_fewshot.data import SliceStack, background_images, choose_exemplars, organ_free_slices, take_slices


def stack(*held):
    """Slices that hold the classes given for each."""
    label = torch.zeros(len(held), 1, 4, 4, dtype=torch.uint8)
    for place, classes in enumerate(held):
        for value in classes:
            label[place, 0, value] = value
    image = torch.arange(len(held)).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).float()
    return SliceStack(image.contiguous(), label, torch.zeros(len(held), dtype=torch.int64))


HEART = stack((), (3,), (2, 3), (1, 2, 3), (1, 2, 3), (1, 2, 3), (2, 3), (3,), ())


def test_one_slice_is_drawn_from_those_with_all_classes():
    drawn = {tuple(choose_exemplars(HEART, [1, 2, 3], seed=seed)) for seed in range(40)}
    assert drawn == {(3,), (4,), (5,)}
    assert choose_exemplars(HEART, [1, 2, 3], seed=7) == choose_exemplars(HEART, [1, 2, 3], seed=7)
    assert {choose_exemplars(HEART, [2, 3], seed=seed)[0] for seed in range(40)} == {2, 3, 4, 5, 6}


@pytest.mark.parametrize(
    ("count", "expected"), [(2, [3, 7]), (3, [1, 4, 7]), (5, [1, 3, 4, 5, 7]), (7, [1, 2, 3, 4, 5, 6, 7])]
)
def test_several_are_spread_over_the_organ_and_show_all_classes(count, expected):
    chosen = choose_exemplars(HEART, [1, 2, 3], count=count)
    assert chosen == expected
    shown = set(HEART.label[chosen].unique().tolist())
    assert {1, 2, 3} <= shown


def test_one_of_several_shows_all_classes_where_any_slice_does():
    ends = stack((1, 2), (3,), (1, 2, 3), (3,), (1, 2))
    assert choose_exemplars(ends, [1, 2, 3], count=2) == [2, 4]


def test_given_slices_are_taken():
    assert choose_exemplars(HEART, [1, 2, 3], slices=[5, 2]) == [2, 5]
    with pytest.raises(ValueError, match=r"There are no slices \[9, -1\]: the annotated scan has slices 0 to 8"):
        choose_exemplars(HEART, [1], slices=[3, 9, -1])
    with pytest.raises(ValueError, match=r"Slices \[1, 2\] do not show classes \[1\]"):
        choose_exemplars(HEART, [1, 2, 3], slices=[1, 2])


def test_impossible_choices_are_refused():
    apart = stack((1,), (2,), (2, 3))
    with pytest.raises(ValueError, match=r"No slice holds all classes \[1, 2, 3\]; slice 2 holds the most, \[2, 3\]"):
        choose_exemplars(apart, [1, 2, 3])
    assert choose_exemplars(apart, [1, 2, 3], count=3) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"Slices \[1, 2\] do not show classes \[1\]"):
        choose_exemplars(stack((), (2,), (2, 3)), [1, 2, 3], count=2)
    with pytest.raises(ValueError, match="4 slices are asked for, 3 hold a class: ask for 1 to 3"):
        choose_exemplars(apart, [1, 2, 3], count=4)


def test_slices_without_any_organ():
    assert organ_free_slices(HEART) == [0, 8]
    assert organ_free_slices(stack((1,))) == []


def test_taken_slices_keep_image_label_and_scan_together():
    part = take_slices(HEART, [5, 1])
    assert part.image[:, 0, 0, 0].tolist() == [5, 1]
    assert torch.equal(part.label, HEART.label[[5, 1]])
    assert len(part.scan) == 2
    assert len(take_slices(HEART, []).image) == 0


def test_backgrounds_by_kind():
    unlabeled = stack((1,), ())
    assert background_images("unlabeled", HEART, unlabeled) is unlabeled.image
    assert background_images("organ_free", HEART, unlabeled)[:, 0, 0, 0].tolist() == [0, 8]
    assert background_images("organ_free", stack((1,)), unlabeled) is None
    assert background_images("black", HEART, unlabeled) is None
    with pytest.raises(ValueError, match="white"):
        background_images("white", HEART, unlabeled)
