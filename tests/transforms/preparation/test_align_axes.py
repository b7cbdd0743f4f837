# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_fewshot.transforms import AlignAxes, AlignAxesd

TURNS = [(order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((1, -1), repeat=3)]
ANGLE = 0.6
ROTATION = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]])


def volume(order=(0, 1, 2), flips=(1, 1, 1), rotation=ROTATION):
    """A volume whose axes are permuted and flipped, at the same place in the patient."""
    array, affine = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4), np.eye(4)
    affine[:3, :3] = rotation * (1.5, 2.0, 5.0)
    affine[:3, 3] = (7, -20, 30)
    array, matrix = array.transpose(order), np.eye(4)
    matrix[:3, :3] = np.eye(3)[:, order]
    for axis, flip in enumerate(flips):
        if flip < 0:
            turn = np.eye(4)
            turn[axis, axis], turn[axis, 3] = -1, array.shape[axis] - 1
            array, matrix = np.flip(array, axis), matrix @ turn
    return MetaTensor(torch.tensor(array.copy())[None], affine=torch.tensor(affine @ matrix))


@pytest.mark.parametrize(("order", "flips"), TURNS)
def test_however_the_axes_lie_they_are_brought_to_those_of_the_other_and_back(order, flips):
    align, turned = AlignAxes(ROTATION.T), volume(order, flips)
    before, affine = turned.clone(), turned.affine.clone()
    found = align(turned)
    assert torch.equal(found.as_tensor(), volume().as_tensor())
    np.testing.assert_allclose(found.affine, volume().affine, atol=1e-9)
    back = align.inverse(found)
    assert torch.equal(back.as_tensor(), before.as_tensor())
    np.testing.assert_allclose(back.affine, affine, atol=1e-9)


def test_axes_go_to_those_that_they_are_closest_to():
    tilt = np.array([[1, 0, 0], [0, np.cos(0.7), -np.sin(0.7)], [0, np.sin(0.7), np.cos(0.7)]])
    for order, flips in TURNS[::7]:
        found = AlignAxes(ROTATION.T)(volume(order, flips, ROTATION @ tilt))
        assert torch.equal(found.as_tensor(), volume().as_tensor())


def test_dictionaries():
    order, flips = TURNS[-1]
    data = {"image": volume(order, flips), "label": volume(order, flips), "name": "a"}
    align = AlignAxesd(["image", "label", "mask"], ROTATION.T, allow_missing_keys=True)
    found = align(data)
    assert found["name"] == "a"
    for key in ("image", "label"):
        assert torch.equal(found[key].as_tensor(), volume().as_tensor())
        assert torch.equal(align.inverse(found)[key].as_tensor(), data[key].as_tensor())
        found = align(data)
    with pytest.raises(KeyError):
        AlignAxesd("mask", ROTATION.T)(data)
