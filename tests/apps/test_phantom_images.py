# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What decides a phantom image, and the shapes that are drawn, against their formulas."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from monai_fewshot.apps.phantom import images, make_phantom_lesions, make_phantom_shapes


def pairs(folder):
    """Images (H, W, 3) and masks (H, W) below a folder, by the name of the image within it."""
    found = {}
    for path in sorted(folder.rglob("*.jpg")):
        mask = path.with_suffix(".png")
        mask = mask if mask.is_file() else folder / "masks" / mask.name
        found[path.relative_to(folder).as_posix()] = np.array(Image.open(path)), np.array(Image.open(mask))
    return found


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return make_phantom_shapes(tmp_path_factory.mktemp("shapes"), num_classes=40, num_images=2, size=96)


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    return make_phantom_lesions(tmp_path_factory.mktemp("lesions"), num_images=12, size=96)


@pytest.mark.parametrize("make", [make_phantom_lesions, lambda *a, **k: make_phantom_shapes(*a, num_classes=3, **k)])
def test_the_seed_decides_and_the_number_of_images_does_not(make, tmp_path):
    few, more, other = tmp_path / "few", tmp_path / "more", tmp_path / "other"
    assert make(few, num_images=2, size=64, seed=1) == few
    make(more, num_images=3, size=64, seed=1)
    make(other, num_images=2, size=64, seed=2)
    assert files(few).items() < files(more).items()
    assert files(few).keys() == files(other).keys()
    assert all(files(few)[name] != content for name, content in files(other).items())


def test_images_are_in_color_and_masks_of_the_same_size_and_binary(shapes, lesions):
    for folder, size in ((shapes, (96, 96)), (lesions, (96, 128))):
        for image, mask in pairs(folder).values():
            assert image.shape == (*size, 3)
            assert mask.shape == size
            assert np.unique(mask).tolist() == [0, 255]


def test_classes_keep_their_color_and_differ_by_it(tmp_path):
    folder = make_phantom_shapes(tmp_path, num_classes=5, num_images=8)
    hues = {}
    for name, (image, mask) in pairs(folder).items():
        inside = image[ndimage.binary_erosion(mask > 0, iterations=3)].mean(0)
        hues.setdefault(name.split("/")[0], []).append(inside / inside.sum())
    centers = {name: np.mean(hue, 0) for name, hue in hues.items()}
    spread = {name: np.linalg.norm(np.array(hue) - centers[name], axis=1).mean() for name, hue in hues.items()}
    for a, b in combinations(centers, 2):
        assert np.linalg.norm(centers[a] - centers[b]) > max(spread[a], spread[b]), (a, b)


def test_the_mask_of_a_shape_ends_where_the_image_changes(shapes):
    steps = []
    for image, mask in pairs(shapes).values():
        edge = ndimage.binary_dilation(mask > 0) & ~ndimage.binary_erosion(mask > 0)
        change = np.hypot(*(ndimage.sobel(image.astype(float), axis).max(-1) for axis in (0, 1)))
        steps.append(change[edge].mean() / change[~edge].mean())
    assert np.mean(np.array(steps) > 1) > 0.95
    assert np.median(steps) > 2


AREAS = {
    "disc": np.pi * 0.9**2,
    "ellipse": np.pi / 1.8,
    "polygon": 5 * 0.8**2 * np.tan(np.pi / 5),
    "ring": np.pi * (1 - 0.5**2),
    "cross": 4 * (2 * 0.28 * 0.95 - 0.28**2),
    "star": np.pi * (0.65**2 + 0.35**2 / 2),
    "blob": np.pi * (0.75**2 + 3 * 0.1**2 / 2),
}


@pytest.mark.parametrize("shape", AREAS)
def test_shapes_have_the_areas_of_their_formulas_wherever_they_lie(shape):
    for seed, radius in enumerate((40, 60)):
        center = np.array([70.0, 90.0])
        drawn = images._shape(np.random.default_rng(seed), (150, 180), shape, center, radius)
        assert drawn.sum() == pytest.approx(AREAS[shape] * radius**2, rel=0.02)


def test_a_crescent_is_a_disc_without_another():
    drawn = images._shape(np.random.default_rng(0), (150, 180), "crescent", np.array([70.0, 90.0]), 60)
    points = np.random.default_rng(1).uniform(-1, 1, (400_000, 2))
    share = ((np.hypot(*points.T) < 1) & (np.hypot(points[:, 0] - 0.5, points[:, 1]) > 0.75)).mean()
    assert drawn.sum() == pytest.approx(4 * share * 60**2, rel=0.02)


def test_the_optics_leave_the_corners_of_some_images_black_and_never_the_middle(lesions):
    corners, middles = [], []
    for image, _ in pairs(lesions).values():
        corners.append(image[[0, 0, -1, -1], [0, -1, 0, -1]].mean(-1).max())
        middles.append(image[36:60, 48:80].mean())
    assert min(corners) < 10
    assert max(corners) > 60
    assert min(middles) > 40


def test_lesions_are_each_one_body_that_varies(lesions):
    masks = [mask > 0 for _, mask in pairs(lesions).values()]
    for mask in masks:
        parts, _ = ndimage.label(mask)
        assert np.bincount(parts.ravel())[1:].max() > 0.95 * mask.sum()
        assert (ndimage.binary_fill_holes(mask) == mask).all()
    overlaps = [(a & b).sum() / (a | b).sum() for a, b in combinations(masks, 2)]
    assert np.mean(overlaps) < 0.6


@pytest.mark.parametrize("number", [0, 41])
def test_numbers_of_classes_that_do_not_exist_are_refused(number, tmp_path):
    with pytest.raises(ValueError, match=f"num_classes is {number}, must be from 1 to 40"):
        make_phantom_shapes(tmp_path, num_classes=number)
    assert not list(tmp_path.iterdir())
