# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_fewshot.transforms import BoxPaste, PasteDraw


def boxes(paste, size, number=2000):
    random = np.random.RandomState(0)
    return [paste.draw(random, size) for _ in range(number)]


def sides(box):
    return box.bottom - box.top, box.right - box.left


@pytest.mark.parametrize(
    ("area", "stretch"), [((0.05, 0.4), 2.5), ((0.5, 0.9), 2.5), ((0.2, 0.3), 1.0), ((1.0, 1.0), 4.0)]
)
def test_areas_and_ratios_of_sides_are_in_their_range(area, stretch):
    height, width = 256, 128
    paste = BoxPaste(1.0, area, stretch)
    found = np.array([sides(box) for box in boxes(paste, (height, width))]) / (height, width)
    areas, ratios = found.prod(1), found[:, 0] / found[:, 1]
    rounding = 0.5 * (1 / height + 1 / width)
    assert area[0] - rounding <= areas.min() <= areas.max() <= area[1] + rounding
    assert areas.min() <= area[0] + 0.02
    assert areas.max() >= area[1] - 0.02
    assert areas.mean() == pytest.approx(np.mean(area), abs=0.02)
    assert ratios.max() <= stretch * 1.05
    assert ratios.min() >= 1 / stretch / 1.05
    if area[1] < 0.41:
        assert ratios.max() >= stretch * 0.9
        assert ratios.min() <= 1 / stretch / 0.9


def test_boxes_lie_everywhere_within_the_image():
    size = (20, 31)
    mask = BoxPaste(1.0).inside(boxes(BoxPaste(1.0), size), size, "cpu")
    assert mask.any(0).all()
    assert all(0 <= b.top < b.bottom <= 20 and 0 <= b.left < b.right <= 31 for b in boxes(BoxPaste(1.0), size))


def test_the_rest_is_empty():
    found = boxes(BoxPaste(0.3), (64, 64))
    pasted = [box for box in found if box != PasteDraw()]
    assert len(pasted) / len(found) == pytest.approx(0.3, abs=0.04)
    assert not BoxPaste().inside([PasteDraw()], (64, 64), "cpu").any()
    assert not any(box != PasteDraw() for box in boxes(BoxPaste(0.0), (64, 64), 50))


def test_the_pixels_of_a_box():
    drawn = boxes(BoxPaste(), (12, 9), 40)
    expected = np.zeros((40, 1, 12, 9), bool)
    for number, box in enumerate(drawn):
        expected[number, 0, box.top : box.bottom, box.left : box.right] = True
    found = BoxPaste().inside(drawn, (12, 9), torch.device("cpu"))
    assert found.dtype == torch.bool
    np.testing.assert_array_equal(found, expected)


def test_tiny_images_have_boxes_of_a_pixel():
    assert {sides(box) for box in boxes(BoxPaste(1.0, (0.05, 0.1)), (2, 2), 50)} == {(1, 1)}


@pytest.mark.parametrize(
    "options",
    [{"prob": 1.5}, {"prob": -0.1}, {"area": (0.0, 0.5)}, {"area": (0.5, 0.4)}, {"area": (0.5, 1.2)}, {"stretch": 0.9}],
)
def test_bad_ranges(options):
    with pytest.raises(ValueError, match="prob must lie from 0 to 1, area must be a range"):
        BoxPaste(**options)
