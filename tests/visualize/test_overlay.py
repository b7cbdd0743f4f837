# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from monai_fewshot.visualize import Panel, figure_to_array, figure_to_png, orient_slice, overlay_figure

YELLOW, RED = to_rgb("#ffe14d"), to_rgb("#ff4f64")


def affine_of(codes, spacing):
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for axis, (code, size) in enumerate(zip(codes, spacing, strict=True)):
        row = next(i for i, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        matrix[row, axis] = size if code in "RAS" else -size
    return matrix


OPPOSITE = dict(zip("LRAPSI", "RLPAIS", strict=True))


@pytest.mark.parametrize(
    ("codes", "right", "down", "aspect"),
    [
        ("RAS", "L", "P", 3),
        ("LAS", "L", "P", 3),
        ("LPS", "L", "P", 3),
        ("PRS", "L", "P", 1 / 3),
        ("ALI", "L", "P", 1 / 3),
        ("RIA", "L", "I", 3),
        ("LSP", "L", "I", 3),
        ("ASR", "P", "I", 3),
        ("SPL", "P", "I", 1 / 3),
    ],
)
def test_anatomical_sides_are_where_radiologists_expect_them(codes, right, down, aspect):
    position = np.stack(np.meshgrid(np.arange(4), np.arange(5), indexing="ij"))
    turned, got_aspect = orient_slice(position, affine_of(codes, (1.0, 3.0, 7.0)))
    for wanted, direction in ((right, -1), (down, -2)):
        axis = next(axis for axis in (0, 1) if codes[axis] in (wanted, OPPOSITE[wanted]))
        steps = np.diff(turned[axis], axis=direction)
        assert (steps == (1 if codes[axis] == wanted else -1)).all()
    assert got_aspect == pytest.approx(aspect)


def test_oblique_affines_go_by_the_nearest_axes():
    affine = affine_of("LAS", (1.25, 1.25, 8))
    angle = np.deg2rad(30)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    array = np.arange(6).reshape(2, 3)
    turned, aspect = orient_slice(array, turn @ affine)
    np.testing.assert_array_equal(turned, orient_slice(array, affine)[0])
    assert aspect == pytest.approx(1)


def near(picture, color, tolerance=0.25):
    return (np.abs(picture[..., :3] - np.array(color)).max(-1) < tolerance).sum()


def test_outlines_are_drawn_in_their_colors_and_empty_masks_leave_none():
    square = np.zeros((40, 40), dtype=bool)
    square[10:30, 10:30] = True
    panel = Panel(np.full((40, 40), 0.5), {"ground truth": square, "prediction": np.zeros((40, 40), dtype=bool)})
    picture = imread(io.BytesIO(figure_to_png(overlay_figure([panel]))))
    assert near(picture, YELLOW) > 200
    assert near(picture, RED) == 0
    both = Panel(panel.image, {"ground truth": square, "prediction": square.T | np.eye(40, dtype=bool)})
    assert near(figure_to_array(overlay_figure([both])) / 255, RED) > 200


def test_a_mask_that_fills_the_image_is_outlined_at_its_border():
    panel = Panel(np.zeros((20, 20)), {"prediction": np.ones((20, 20), dtype=bool)})
    assert near(figure_to_array(overlay_figure([panel])) / 255, RED) > 100


def test_grids_have_a_row_for_every_so_many_panels():
    panels = [Panel(np.random.RandomState(0).rand(8, 8, 3), title=f"{number} $x") for number in range(5)]
    one_row = figure_to_array(overlay_figure(panels, columns=5))
    three_rows = figure_to_array(overlay_figure(panels, columns=2))
    assert one_row.shape == (260, 1300, 3)
    assert three_rows.shape == (780, 520, 3)


def test_what_does_not_fit_is_named():
    image = np.zeros((8, 8))
    with pytest.raises(ValueError, match=r"outline 'prediction' has shape \(8, 9\), but its image has \(8, 8\)"):
        overlay_figure([Panel(image, {"prediction": np.zeros((8, 9))})])
    with pytest.raises(ValueError, match="outline 'liver' has no color"):
        overlay_figure([Panel(image, {"liver": image})])
    with pytest.raises(ValueError, match="at least one panel"):
        overlay_figure([])
