# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Phantom images as data sets: their layout on disk, and that masks are of what is drawn."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.measure import regionprops

from monai_fewshot.apps.phantom import make_phantom_lesions, make_phantom_shapes
from monai_fewshot.apps.phantom.images import SHAPES, TEXTURES
from monai_fewshot.data import check_images, load_image_set

SIZE = 96


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return make_phantom_shapes(tmp_path_factory.mktemp("shapes"), len(SHAPES) * len(TEXTURES), 3, SIZE)


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    return make_phantom_lesions(tmp_path_factory.mktemp("lesions"), 12, SIZE)


def _read(item):
    with Image.open(item["image"]) as image, Image.open(item["label"]) as mask:
        return np.asarray(image) / 255, np.asarray(mask) > 0


def _around(mask, inner, outer):
    """Pixels from one distance to another outside of a mask."""
    distance = ndimage.distance_transform_edt(~mask)
    return (distance > inner) & (distance <= outer)


def _inside(mask, margin):
    return ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] > margin


def _of_kind(folder, word):
    return [_read(item) for item in load_image_set(folder).images if word in item["name"].split("_")]


def test_shapes_are_a_folder_a_class_with_jpeg_images_beside_png_masks(shapes):
    found = load_image_set(shapes, require_labels=True)
    check_images(found.images)
    assert len(found.images) == 40 * 3
    assert load_image_set(shapes, "class_folders").images == found.images
    for item in found.images:
        folder, name = item["name"].rsplit("_", 1)
        assert item["image"] == str(shapes / folder / f"{name}.jpg")
        assert item["label"] == str(shapes / folder / f"{name}.png")
        with Image.open(item["image"]) as image, Image.open(item["label"]) as mask:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (SIZE, SIZE))
            assert (mask.format, mask.mode, mask.size) == ("PNG", "L", (SIZE, SIZE))


def test_lesions_are_pairs_of_jpeg_images_and_png_masks(lesions):
    found = load_image_set(lesions, require_labels=True)
    assert load_image_set(lesions, "pairs").images == found.images
    for item in found.images:
        assert re.search(r"images/lesion_\d{3}\.jpg$", item["image"])
        with Image.open(item["image"]) as image, Image.open(item["label"]) as mask:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (SIZE * 4 // 3, SIZE))
            assert (mask.format, mask.mode, mask.size) == ("PNG", "L", image.size)


def test_twenty_classes_are_numbered_and_have_every_shape_and_texture(tmp_path):
    names = list(load_image_set(make_phantom_shapes(tmp_path, 20, 1, 16)).class_names.values())
    assert [int(name.split("_")[0]) for name in names] == list(range(1, 21))
    kinds = {tuple(name.split("_")[1:]) for name in names}
    assert len(kinds) == 20
    assert {shape for shape, _ in kinds} == set(SHAPES)
    assert {texture for _, texture in kinds} == set(TEXTURES)


@pytest.mark.parametrize(
    ("shape", "has_hole", "solidity"),
    [
        ("disc", False, 1),
        ("ellipse", False, 1),
        ("polygon", False, 1),
        ("star", False, 0.6),
        ("ring", True, 0.75),
        ("cross", False, 0.6),
        ("crescent", False, 0.6),
        ("blob", False, 0.96),
    ],
)
def test_masks_are_one_piece_with_the_holes_and_dents_of_their_shape(shapes, shape, has_hole, solidity):
    masks = [mask for _, mask in _of_kind(shapes, shape)]
    assert len(masks) == len(TEXTURES) * 3
    for mask in masks:
        (region,) = regionprops(ndimage.label(mask, np.ones((3, 3)))[0])
        assert (region.area_filled > 1.1 * region.area) == has_hole
        assert region.solidity == pytest.approx(solidity, abs=0.09)
    assert np.std([ndimage.center_of_mass(mask) for mask in masks], axis=0).min() > 0.05 * SIZE


def _differs_from_inside(image, mask):
    """Where the color is not that of the object, which must be plain."""
    color = np.median(image[_inside(mask, 1)], axis=0)
    return np.abs(image - color).max(-1) > 0.15


def test_a_plain_object_is_within_its_mask_alone(shapes):
    outside = []
    for image, mask in _of_kind(shapes, "plain"):
        differs = _differs_from_inside(image, mask)
        assert differs[_inside(mask, 1)].mean() < 0.05
        outside.append(differs[_around(mask, 2, 5)].mean())
    assert np.median(outside) > 0.9


@pytest.mark.parametrize("num_classes", [1, 6])
def test_no_other_object_of_the_class_stands_beside(num_classes, tmp_path):
    folder = make_phantom_shapes(tmp_path, num_classes, 12, SIZE, seed=1)
    items = [item for item in load_image_set(folder).images if item["name"].startswith("01_disc_plain")]
    assert len(items) == 12
    alike = [(~_differs_from_inside(image, mask))[_around(mask, 3, SIZE)].mean() for image, mask in map(_read, items)]
    assert np.median(alike) < 0.05


def test_lesions_are_brown_and_darker_than_skin_up_to_the_border_of_their_masks(lesions):
    for image, mask in map(_read, load_image_set(lesions).images):
        skin, gray = _around(mask, 4, 16), image.mean(-1)
        assert gray[mask].mean() < 0.85 * np.median(gray[skin])
        assert gray[_inside(mask, 3) & ~_inside(mask, 6)].mean() < gray[_around(mask, 3, 6)].mean() - 0.02
        for area in (mask, skin):
            red, green, blue = np.median(image[area], axis=0)
            assert red > green > blue
