# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections import Counter

import pytest

from monai_fewshot.data import (
    ImageSet,
    hold_out_images,
    random_support_folds,
    support_fold,
    support_images,
    with_pseudo_masks,
    without_labels,
)


def _of_classes(classes, images_each):
    """Images of ``classes`` classes, each with a class of its own."""
    return ImageSet(
        tuple(
            {"name": f"{c}_{i}", "image": f"{c}/{i}.jpg", "label": f"{c}/{i}.png", "class_number": c}
            for c in range(1, classes + 1)
            for i in range(images_each)
        ),
        {c: f"class {c}" for c in range(1, classes + 1)},
    )


def _names(image_set):
    return [image["name"] for image in image_set.images]


def test_classes_are_held_out_where_there_are_enough():
    image_set = _of_classes(classes=11, images_each=3)
    train, validation = hold_out_images(image_set, 0.2)
    assert list(validation.class_names) == [5, 10]
    assert list(train.class_names) == [1, 2, 3, 4, 6, 7, 8, 9, 11]
    assert sorted(_names(train) + _names(validation)) == sorted(_names(image_set))
    for part in (train, validation):
        assert {image["class_number"] for image in part.images} == set(part.class_names)


@pytest.mark.parametrize(("share", "every"), [(0.2, 5), (0.25, 4), (0.1, 10), (0.34, 3)])
def test_images_are_held_out_of_few_classes(share, every):
    image_set = _of_classes(classes=1, images_each=23)
    train, validation = hold_out_images(image_set, share)
    assert _names(validation) == _names(image_set)[every - 1 :: every]
    assert not set(_names(train)) & set(_names(validation))
    assert len(train.images) + len(validation.images) == 23
    assert train.class_names == validation.class_names == image_set.class_names


def test_images_of_several_classes_are_held_out_by_image():
    images = tuple({"name": f"{i:02}", "image": f"{i}.jpg", "label": f"{i}.png"} for i in range(20))
    train, validation = hold_out_images(ImageSet(images, {c: str(c) for c in range(1, 21)}))
    assert _names(validation) == ["04", "09", "14", "19"]
    assert len(train.images) == 16
    assert len(train.class_names) == len(validation.class_names) == 20


def test_nothing_held_out():
    image_set = _of_classes(2, 3)
    assert hold_out_images(image_set, 0) == (image_set, image_set)


@pytest.mark.parametrize("share", [-0.1, 0.5, 1])
def test_a_share_out_of_range(share):
    with pytest.raises(ValueError, match=f"val_share is {share}, must be from 0 to below 0.5"):
        hold_out_images(_of_classes(2, 3), share)


def test_no_annotation_is_left():
    assert without_labels(_of_classes(1, 2).images) == [
        {"name": "1_0", "image": "1/0.jpg"},
        {"name": "1_1", "image": "1/1.jpg"},
    ]


def test_pseudo_masks_take_the_place_of_annotations(tmp_path, caplog):
    image_set = _of_classes(2, 2)
    for name in ("1_0", "2_1"):
        (tmp_path / f"{name}.png").touch()
    with caplog.at_level(logging.WARNING):
        found = with_pseudo_masks(image_set, tmp_path)
    assert found.images == (
        {"name": "1_0", "image": "1/0.jpg", "label": str(tmp_path / "1_0.png"), "class_number": 1},
        {"name": "2_1", "image": "2/1.jpg", "label": str(tmp_path / "2_1.png"), "class_number": 1},
    )
    assert found.class_names == {1: "salient"}
    assert f"2 of 4 images have no mask in {tmp_path}: left out" in caplog.text


def test_absent_pseudo_masks(tmp_path):
    message = r"has a mask for none of the 4 images, such as 1_0\.png: make them with configs/saliency\.json"
    with pytest.raises(ValueError, match=message):
        with_pseudo_masks(_of_classes(2, 2), tmp_path)


def _files(folder, *names):
    for name in names:
        (folder / name).touch()
    return [str(folder / name) for name in names]


def test_one_support_image(tmp_path):
    image, mask = _files(tmp_path, "IMD 002.jpg", "lesion.png")
    assert support_images(image, mask) == [{"name": "IMD 002", "image": image, "label": mask, "class_number": 1}]
    assert support_images(image, mask, binary_masks=False) == [{"name": "IMD 002", "image": image, "label": mask}]
    assert support_images(image, mask, mask_threshold=127)[0]["mask_threshold"] == 127


def test_several_support_images_keep_their_order(tmp_path):
    images, masks = _files(tmp_path, "c.jpg", "a.jpg", "b.jpg"), _files(tmp_path, "1.png", "2.png", "3.png")
    supports = support_images(images, masks)
    assert [support["name"] for support in supports] == ["c", "a", "b"]
    assert [support["label"] for support in supports] == masks


def test_support_images_that_are_not_there(tmp_path):
    image, mask = _files(tmp_path, "a.jpg", "a.png")
    with pytest.raises(ValueError, match=r"2 support image\(s\) and 1 mask\(s\): give one mask for each image"):
        support_images([image, image], mask)
    with pytest.raises(FileNotFoundError, match=r"There is no file .*b\.jpg, .*b\.png: name the annotated images"):
        support_images([image, tmp_path / "b.jpg"], [mask, tmp_path / "b.png"])


def test_one_image_is_the_example_of_all_others():
    images = _of_classes(1, 4).images
    fold = support_fold(images, "1_2")
    assert (fold.support, fold.query) == (("1_2",), ("1_0", "1_1", "1_3"))
    with pytest.raises(ValueError, match="no image called 'x' to be the support; there are 1_0, 1_1, 1_2, 1_3"):
        support_fold(images, "x")


def test_several_images_are_the_example_of_all_others():
    images = _of_classes(1, 5).images
    for support in (["1_3", "1_0"], ("1_3", "1_0")):
        fold = support_fold(images, support)
        assert (fold.index, fold.support, fold.query, fold.train) == (0, ("1_3", "1_0"), ("1_1", "1_2", "1_4"), ())
    with pytest.raises(ValueError, match="no image called 'x', 'y' to be the support; there are 1_0, 1_1, 1_2, 1_3"):
        support_fold(images, ["1_1", "x", "y"])


@pytest.mark.parametrize(("shots", "runs"), [(1, 6), (3, 4), (6, 2)])
def test_every_run_has_as_many_supports_and_all_others_are_queries(shots, runs):
    images = _of_classes(1, 7).images
    names = [image["name"] for image in images]
    folds = random_support_folds(images, shots, runs)
    assert [fold.index for fold in folds] == list(range(runs))
    for fold in folds:
        assert len(fold.support) == shots
        assert list(fold.support) == [name for name in names if name in fold.support]
        assert list(fold.query) == [name for name in names if name not in fold.support]
        assert fold.train == ()


def test_a_run_is_a_function_of_seed_and_number():
    images = _of_classes(1, 30).images
    folds = random_support_folds(images, 5, 10, seed=3)
    assert random_support_folds(images, 5, 4, seed=3) == folds[:4]
    assert len({fold.support for fold in folds}) == 10
    assert not {fold.support for fold in folds} & {f.support for f in random_support_folds(images, 5, 10, seed=4)}


def test_supports_of_runs_are_drawn_evenly():
    images = _of_classes(1, 6).images
    drawn = Counter(name for fold in random_support_folds(images, 2, 900) for name in fold.support)
    assert set(drawn) == {image["name"] for image in images}
    assert all(230 < count < 370 for count in drawn.values())


@pytest.mark.parametrize("shots", [0, -1, 4, 5])
def test_runs_without_a_query_or_a_support(shots):
    message = f"{shots} annotated images of 4 are asked for: give 1 at least, and one image more than shots"
    with pytest.raises(ValueError, match=message):
        random_support_folds(_of_classes(1, 4).images, shots, 3)
