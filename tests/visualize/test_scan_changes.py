# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np

from monai_fewshot.visualize import ScanChange, change_figure, figure_to_png, write_change_page

NAMES = {1: "liver", 2: "spleen"}


def test_the_slice_in_which_most_has_changed_is_drawn_twice():
    before = np.zeros((16, 12, 5), int)
    after = before.copy()
    after[2:4, 2:4, 1] = 1
    after[2:9, 2:9, 3] = 2
    image = np.random.default_rng(0).random(before.shape)
    figure = change_figure(image, before, after, NAMES, np.diag([1.0, 1.0, 4.0, 1.0]))
    assert [axes.get_title() for axes in figure.axes] == ["before, slice 3", "after, slice 3"]
    assert [len(axes.collections) for axes in figure.axes] == [0, 1]
    assert figure_to_png(figure).startswith(b"\x89PNG")


def test_slices_run_along_the_axis_of_the_largest_voxels_and_the_middle_one_stands_for_no_change():
    empty = np.zeros((7, 12, 10), int)
    figure = change_figure(np.random.default_rng(0).random(empty.shape), empty, empty, NAMES, np.diag([5.0, 1, 1, 1]))
    assert figure.axes[0].get_title() == "before, slice 3"


def test_the_scan_that_has_changed_most_comes_first_and_corrected_ones_last(tmp_path):
    figures = {"a": (0.9, 0.8), "b": (0.1, 0.4), "c": (0.0, 0.0)}
    changes = [ScanChange(name, dict(zip(NAMES, dice, strict=True)), b"picture") for name, dice in figures.items()]
    page = write_change_page(tmp_path / "changes.html", changes, NAMES, ["c"], "changes.csv", {"name": "round 1"})
    text = page.read_text()
    assert text.index(">b<") < text.index(">a<") < text.index(">c<")
    assert ">25.0<" in text
    assert text.count("(corrected)") == 2
    assert 'href="changes.csv"' in text
