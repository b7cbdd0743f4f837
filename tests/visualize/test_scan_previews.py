# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from monai.data import MetaTensor
from monai.transforms import Orientation

from monai_fewshot.visualize import class_colors, figure_to_array, picture_figure, preview_figure

NAMES = {1: "liver", 2: "$x_1$ <spleen>"}
SPACING = (1.0, 2.0, 4.0)


def _scan():
    """A body in RAS axes with a bright right front, a dark rest and a class at the right, front, top."""
    image = torch.full((24, 16, 10), 20.0)
    image[16:, 10:, 7:] = 200.0
    image[0, 0, 0] = 0.0
    label = torch.zeros(24, 16, 10, dtype=torch.uint8)
    label[17:22, 11:15, 8] = 1
    label[3:6, 2:4, 8] = 2
    return image, label, torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64))


def _panels(figure):
    return {axes.get_title().split()[0]: axes for axes in figure.axes}


def _edges(axes):
    """The letters at the left, the right, the top and the bottom of a picture."""
    placed = {text.get_text(): text.get_position() for text in axes.texts}
    horizontal, vertical = (sorted(placed, key=lambda letter: placed[letter][axis]) for axis in (0, 1))
    return horizontal[0], horizontal[-1], vertical[-1], vertical[0]


def test_three_planes_with_letters_where_they_belong():
    image, label, affine = _scan()
    panels = _panels(preview_figure(image, label, NAMES, affine))
    assert {name: _edges(axes) for name, axes in panels.items()} == {
        "axial": ("R", "L", "A", "P"),
        "coronal": ("R", "L", "S", "I"),
        "sagittal": ("A", "P", "S", "I"),
    }
    bright = {name: axes.images[0].get_array() > 0.9 for name, axes in panels.items()}
    axial, coronal = bright["axial"], bright["coronal"]
    assert axial[:6, :8].all()
    assert axial.sum() == 6 * 8
    assert coronal[:3, :8].all()
    assert coronal.sum() == 3 * 8


def test_pixels_have_the_shape_that_voxels_have():
    panels = _panels(preview_figure(*_scan()[:2], NAMES, _scan()[2]))
    assert {name: axes.images[0].get_array().shape for name, axes in panels.items()} == {
        "axial": (16, 24),
        "coronal": (10, 24),
        "sagittal": (10, 16),
    }
    assert {name: axes.get_aspect() for name, axes in panels.items()} == {"axial": 2.0, "coronal": 4.0, "sagittal": 2.0}


def test_a_millimeter_is_as_long_in_all_planes():
    figure = preview_figure(*_scan()[:2], NAMES, _scan()[2])
    figure_to_array(figure)
    lengths = {"axial": 24.0, "coronal": 24.0, "sagittal": 32.0}
    scales = [axes.get_window_extent().width / lengths[name] for name, axes in _panels(figure).items()]
    np.testing.assert_allclose(scales, scales[0], rtol=0.02)


@pytest.mark.parametrize("axcodes", [*map("".join, itertools.permutations("RAS")), "LPI", "PSL"])
def test_the_order_of_axes_plays_no_part(axcodes):
    image, label, affine = _scan()
    expected = _panels(preview_figure(image, label, NAMES, affine))
    turn = Orientation(axcodes)
    turned, mask = (turn(MetaTensor(array[None], affine=affine)) for array in (image, label))
    found = _panels(preview_figure(turned[0], mask[0], NAMES, turned.affine))
    assert found.keys() == expected.keys()
    for name, axes in found.items():
        np.testing.assert_array_equal(axes.images[0].get_array(), expected[name].images[0].get_array())
        assert axes.get_aspect() == pytest.approx(expected[name].get_aspect())
        assert len(axes.collections) == len(expected[name].collections)


def test_the_planes_with_most_of_the_classes_are_shown_with_contours():
    image, label, affine = _scan()
    panels = _panels(preview_figure(image, label, NAMES, affine))
    assert panels["axial"].get_title() == "axial 8"
    colors = class_colors(NAMES)
    drawn = {to_hex(line.get_edgecolor()[0]) for line in panels["axial"].collections}
    assert drawn == set(colors.values())
    bounds = panels["axial"].collections[0].get_paths()[0].get_extents().bounds
    np.testing.assert_allclose(bounds, (23 - 21.5, 15 - 14.5, 5, 4))


def test_where_the_network_is_sure_is_dotted():
    image, label, affine = _scan()
    sure = torch.zeros(24, 16, 10, dtype=torch.bool)
    sure[18:21] = True
    axial = _panels(preview_figure(image, label, NAMES, affine, sure=sure))["axial"]
    whole, other, core = axial.collections
    assert core.get_linestyle() != whole.get_linestyle() == other.get_linestyle()
    assert to_hex(core.get_edgecolor()[0]) == to_hex(whole.get_edgecolor()[0]) == class_colors(NAMES)[1]
    np.testing.assert_allclose(core.get_paths()[0].get_extents().bounds, (23 - 20.5, 15 - 14.5, 3, 4))
    flat = picture_figure(np.zeros((1, 24, 16)), label[..., 8], NAMES, sure=sure[..., 8]).axes[0]
    assert [to_hex(line.get_edgecolor()[0]) for line in flat.collections] == [
        *class_colors(NAMES).values(),
        to_hex(core.get_edgecolor()[0]),
    ]


def test_a_scan_without_any_class_is_shown_in_the_middle():
    image, label, affine = _scan()
    figure = preview_figure(image, label * 0, NAMES, affine, "nothing found")
    assert [axes.get_title() for axes in figure.axes] == ["axial 5", "coronal 8", "sagittal 12"]
    assert not figure.legends
    assert figure.get_suptitle() == "nothing found"


def test_the_legend_names_what_is_found():
    image, label, affine = _scan()
    label[label == 1] = 0
    (legend,) = preview_figure(image, label, NAMES, affine).legends
    assert [text.get_text() for text in legend.get_texts()] == ["$x_1$ <spleen>"]
    assert figure_to_array(preview_figure(image, label, NAMES, affine)).shape[2] == 3


def test_ct_is_shown_in_a_window_of_soft_tissue():
    image, label, affine = _scan()
    image = torch.where(image == 0, -1000.0, image)
    gray = _panels(preview_figure(image, label, NAMES, affine))["axial"].images[0].get_array()
    np.testing.assert_allclose(np.unique(gray), [(20 + 160) / 400, (200 + 160) / 400])


def test_a_constant_image_and_oblique_axes():
    _, label, affine = _scan()
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]
    figure = preview_figure(np.zeros(label.shape), label, NAMES, turn @ affine.numpy())
    assert np.isfinite(figure_to_array(figure)).all()
    assert set(_panels(figure)) == {"axial", "coronal", "sagittal"}


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_keeps_its_colors_and_proportions(channels):
    image = np.zeros((channels, 30, 60), np.uint8)
    image[-1] = 200
    label = np.zeros((30, 60), np.uint8)
    label[10:20, 20:40] = 1
    figure = picture_figure(image, label, {1: "lesion"}, "IMD_1")
    shown = figure_to_array(figure)
    assert shown.shape[1] > shown.shape[0]
    colors = {tuple(color) for color in shown.reshape(-1, 3).tolist()}
    assert ((0, 0, 200) if channels == 3 else (200, 200, 200)) in colors
    assert tuple(int("ff4f64"[i : i + 2], 16) for i in (0, 2, 4)) in colors
    assert figure.get_suptitle() == "IMD_1"
