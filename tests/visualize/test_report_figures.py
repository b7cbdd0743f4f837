# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest

from monai_fewshot.metrics import ScanScore
from monai_fewshot.visualize import SliceCase, box_figure, case_figure, figure_to_array, protocol_colors

COLORS = protocol_colors(["alpnet", "whole_volume"])


def score(scan, number, protocol, dice, hd95):
    return ScanScore(0, scan, number, f"organ $_{number}", protocol, dice, hd95, "mm", 9, 30, 5000, 5100)


def test_boxes_show_the_defined_values_of_each_class_and_protocol():
    scores = [score(f"{n}", 1, "alpnet", value, math.nan) for n, value in enumerate((0.2, 0.4, 0.9, math.nan))]
    scores += [score("0", 2, "whole_volume", 0.5, 12.0)]
    figure = box_figure(scores, ["organ $_1", "organ $_2"], COLORS)
    dice_axes, hd95_axes = figure.axes
    dots = [line.get_ydata().tolist() for line in dice_axes.lines if line.get_marker() == "." and len(line.get_ydata())]
    assert [sorted(values) for values in dots] == [pytest.approx([20, 40, 90]), pytest.approx([50])]
    dots = [line.get_ydata().tolist() for line in hd95_axes.lines if line.get_marker() == "." and len(line.get_ydata())]
    assert dots == [[12.0]]
    assert [label.get_text() for label in dice_axes.get_xticklabels()] == ["organ $_1", "organ $_2"]
    assert figure_to_array(figure).std() > 0


def test_a_legend_of_many_stays_on_the_figure():
    colors = {f"A method with a long name, {n}": f"#{n:02d}8080" for n in range(13)}
    figure = box_figure([score("0", 1, name, 0.5, 3.0) for name in colors], ["organ $_1"], colors)
    figure_to_array(figure)
    (legend,) = figure.legends
    inside = figure.bbox
    box = legend.get_window_extent()
    assert inside.x0 <= box.x0 < box.x1 <= inside.x1
    assert inside.y0 <= box.y0 < box.y1 <= inside.y1
    assert {text.get_text() for text in legend.get_texts()} == set(colors)


@pytest.mark.parametrize("protocols", [("whole_volume",), ("alpnet", "whole_volume")])
@pytest.mark.parametrize("where", [(slice(0, 3), slice(50, 60)), (slice(30, 31), slice(2, 3)), (slice(None),) * 2])
def test_cases_are_cut_to_what_is_outlined_wherever_it_lies(protocols, where):
    label = np.zeros((50, 60), dtype=bool)
    label[where] = True
    areas = np.arange(7)
    case = SliceCase(
        0, "a", "liver", protocols, 6, 1.5, np.zeros((50, 60), np.uint8), label,
        np.stack([label] * len(protocols)), areas, np.stack([areas] * len(protocols)),
    )  # fmt: skip
    figure = case_figure(case, COLORS)
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(shown) == len(protocols)
    rows, columns = np.nonzero(label)
    extent = max(np.ptp(rows), np.ptp(columns)) + 1 + 48
    assert shown[0].shape == (min(extent, 50), min(extent, 60))
    assert figure_to_array(figure).std() > 0


def test_without_distances_there_is_one_box_plot():
    figure = box_figure([score("0", 1, "alpnet", 0.5, math.nan)], ["organ $_1"], COLORS)
    assert [axes.get_ylabel() for axes in figure.axes] == ["Dice (%), higher is better"]
    figure = box_figure([score("0", 1, "alpnet", 0.5, 3.0)], ["organ $_1"], COLORS)
    assert figure.axes[1].get_ylabel() == "HD95 (mm), lower is better"


def test_a_color_image_of_one_slice_has_no_areas():
    label = np.zeros((40, 40), dtype=bool)
    label[10:30, 10:30] = True
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    one = np.array([400])
    case = SliceCase(0, "a", "lesion", ("alpnet",), 0, 1.0, image, label, label[None], one, one[None])
    figure = case_figure(case, COLORS)
    assert len(figure.axes) == 1
    assert np.array_equal(figure.axes[0].images[0].get_array(), image)
