# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_fewshot.transforms import BodyMask, RandomRectangleLabels, RandomRectangleLabelsd


def scan(depth: int = 3, size: int = 96) -> np.ndarray:
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    body = (rows**2 + columns**2 < 0.2)[..., None]
    image = np.where(body, 100 + 9 * rng.standard_normal((size, size, depth)), 2)
    image[..., -1] = 2
    return image[None].astype(np.float32)


def test_every_id_is_a_rectangle_of_allowed_sides_inside_the_foreground():
    image = scan()
    labels = RandomRectangleLabels(min_side=6, max_side=20)(image)
    assert labels.shape == image.shape
    assert labels.dtype == np.int32
    assert not labels[BodyMask()(image) == 0].any()
    for index in range(image.shape[-1] - 1):
        plane = labels[0, ..., index]
        assert plane.max() > 5
        for number in range(1, plane.max() + 1):
            rows, columns = np.nonzero(plane == number)
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert len(rows) == height * width
            assert 6 <= height <= 20
            assert 6 <= width <= 20
    assert not labels[..., -1].any()


def test_draws_depend_on_seed_and_content_alone():
    image = scan()
    labels = RandomRectangleLabels(min_side=6, max_side=20)(image)
    assert (RandomRectangleLabels(min_side=6, max_side=20)(image) == labels).all()
    assert (RandomRectangleLabels(min_side=6, max_side=20)(image[..., 1]) == labels[..., 1]).all()
    assert (RandomRectangleLabels(min_side=6, max_side=20, seed=1)(image) != labels).any()
    assert (RandomRectangleLabels(min_side=6, max_side=20)(image + 1) != labels).any()


def test_sides_are_log_uniform():
    image = np.ones((1, 500, 500))
    image[0, 0] = 0
    labels = RandomRectangleLabels(min_side=4, max_side=15, threshold=0.5, attempts=400)(image)
    heights = [np.ptp(np.nonzero(labels[0] == number)[0]) + 1 for number in range(1, 200)]
    assert 0.4 < np.mean(np.array(heights) < 8) < 0.6


def test_slice_smaller_than_every_rectangle():
    image = scan(size=12)
    assert not RandomRectangleLabels(min_side=20)(image).any()


def test_cache_tells_seeds_apart(tmp_path):
    image = scan()
    first, second = (RandomRectangleLabels(6, 20, seed=seed, cache_dir=tmp_path)(image) for seed in (0, 1))
    assert (first != second).any()
    assert (RandomRectangleLabels(6, 20, seed=1, cache_dir=tmp_path)(image) == second).all()


def test_dictionary_form():
    out = RandomRectangleLabelsd("image", min_side=6, max_side=20)({"image": MetaTensor(scan())})
    assert isinstance(out["pseudo_label"], MetaTensor)
    assert out["pseudo_label"].dtype == torch.int32
    assert (out["pseudo_label"].numpy() == RandomRectangleLabels(6, 20)(scan())).all()


@pytest.mark.parametrize("arguments", [{"min_side": 0}, {"min_side": 9, "max_side": 8}, {"attempts": 0}, {"seed": -1}])
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match="1 <= min_side <= max_side, attempts 1 or greater and seed 0 or greater"):
        RandomRectangleLabels(**arguments)
