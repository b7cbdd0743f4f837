# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from monai_fewshot.metrics import ScanScore, distance_unit

from .cases import SliceCase
from .overlay import COLORS, Panel, draw_panel

__all__ = ["box_figure", "case_figure", "protocol_colors"]

LEGEND_COLUMNS = 4
PROTOCOL_COLORS = ("#e8553d", "#2f8fe0", "#8e5bd0", "#3aa76d", "#c26a9a")


def protocol_colors(protocols: Sequence[str]) -> dict[str, str]:
    """Give every protocol a color that is seen on white and on gray images.

    Args:
        protocols: their names.
    """
    return {name: PROTOCOL_COLORS[place % len(PROTOCOL_COLORS)] for place, name in enumerate(protocols)}


def box_figure(scores: Sequence[ScanScore], class_names: Sequence[str], colors: Mapping[str, str]) -> Figure:
    """Box plots of Dice and, where there is any, HD95 by class, protocols beside one another, every scan a dot.

    Boxes reach from the first to the third quartile, whiskers over the farthest values within 1.5 of that range.

    Args:
        scores: what to plot; undefined values are left out.
        class_names: in the order of the axis.
        colors: by protocol, in the order of the boxes.
    """
    distances = _values(scores, "hd95")
    legend_rows = math.ceil(len(colors) / LEGEND_COLUMNS)
    figure = Figure(figsize=(11, 3.4 + 0.2 * legend_rows), layout="constrained")
    dice_axes, *hd95_axes = figure.subplots(1, 2 if distances else 1, squeeze=False)[0]
    dice = {key: [100 * value for value in values] for key, values in _values(scores, "dice").items()}
    _boxes(dice_axes, dice, class_names, colors)
    dice_axes.set(ylim=(-2, 102), ylabel="Dice (%), higher is better")
    for axes in hd95_axes:
        _boxes(axes, distances, class_names, colors)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"HD95 ({distance_unit(scores)}), lower is better")
    handles = [dice_axes.plot([], [], "s", color=color, label=name)[0] for name, color in colors.items()]
    columns = math.ceil(len(colors) / legend_rows)
    legend = figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _values(scores: Sequence[ScanScore], metric: str) -> dict[tuple[str, str], list[float]]:
    values: dict[tuple[str, str], list[float]] = {}
    for score in scores:
        if not math.isnan(value := getattr(score, metric)):
            values.setdefault((score.class_name, score.protocol), []).append(value)
    return values


def _boxes(
    axes: Axes,
    values: Mapping[tuple[str, str], Sequence[float]],
    class_names: Sequence[str],
    colors: Mapping[str, str],
) -> None:
    step = 0.8 / len(colors)
    for place, (protocol, color) in enumerate(colors.items()):
        for group, name in enumerate(class_names):
            numbers = values.get((name, protocol), [])
            position = group + (place - (len(colors) - 1) / 2) * step
            lines = {"color": color, "linewidth": 1.3}
            axes.boxplot(
                [numbers],
                positions=[position],
                widths=0.75 * step,
                showfliers=False,
                patch_artist=True,
                boxprops={"facecolor": f"{color}30", "edgecolor": color},
                medianprops={"color": color, "linewidth": 2.2},
                whiskerprops=lines,
                capprops=lines,
            )
            spread = position + 0.35 * step * (np.arange(len(numbers)) * 0.618 % 1 - 0.5)
            axes.plot(spread, numbers, ".", color=color, markersize=4, alpha=0.75)
    axes.set_xticks(range(len(class_names)))
    for label in axes.set_xticklabels(class_names):
        label.set_parse_math(False)
    axes.set_xlim(-0.5, len(class_names) - 0.5)
    axes.grid(axis="y", color="#e3e7ec")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def case_figure(case: SliceCase, colors: Mapping[str, str]) -> Figure:
    """Draw a case: its slice once a protocol, cut to what is outlined, above the areas in all slices if there are more.

    Args:
        case: what to draw.
        colors: by protocol.
    """
    number, single = len(case.protocols), case.label_pixels.size == 1
    figure = Figure(figsize=(2.1 * max(number, 2), 2.4 if single else 3.1), layout="constrained")
    grid = figure.add_gridspec(1 if single else 2, number, height_ratios=None if single else (2.05, 0.7))
    window = _window(np.concatenate([case.label[None], case.predictions]))
    for place, name in enumerate(case.protocols):
        outlines = {"ground truth": case.label[window], name: case.predictions[place][window]}
        panel = Panel(case.image[window], outlines, name, case.pixel_aspect, {name: colors[name]})
        draw_panel(figure.add_subplot(grid[0, place]), panel)
    if not single:
        _draw_areas(figure.add_subplot(grid[1, :]), case, colors)
    return figure


def _draw_areas(axes: Axes, case: SliceCase, colors: Mapping[str, str]) -> None:
    slices = np.arange(case.label_pixels.size)
    axes.bar(slices, case.label_pixels, width=1, color=COLORS["ground truth"])
    for name, pixels in zip(case.protocols, case.predicted_pixels, strict=True):
        axes.step(slices, pixels, where="mid", color=colors[name], linewidth=1.3)
    axes.axvline(case.slice_index, color="#55606e", linewidth=0.8, linestyle=":")
    axes.set_xlim(-0.5, slices.size - 0.5)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=7)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)


def _window(masks: np.ndarray, margin: int = 24) -> tuple[slice, slice]:
    drawn = np.logical_or.reduce(masks)
    bounds = [np.flatnonzero(drawn.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    extent = max(last - first for first, last in bounds) + 1 + 2 * margin
    starts = [max((first + last + 1 - extent) // 2, 0) for first, last in bounds]
    rows, columns = (
        slice(int(min(start, max(size - extent, 0))), int(start + extent))
        for start, size in zip(starts, drawn.shape, strict=True)
    )
    return rows, columns
