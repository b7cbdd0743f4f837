# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from monai.utils import convert_to_numpy
from nibabel.orientations import aff2axcodes

from .overlay import Panel, draw_panel, orient_slice

__all__ = ["class_colors", "gray_window", "picture_figure", "preview_figure"]

CLASS_COLORS = (
    "#ff4f64",
    "#4dd2ff",
    "#ffe14d",
    "#6ee16e",
    "#c58bff",
    "#ff9f40",
    "#ff7ad9",
    "#3ddbb0",
    "#8fa8ff",
    "#d6f06b",
    "#e8b48a",
    "#e04fff",
    "#58a05c",
)
PLANES = {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal", "L": "sagittal", "R": "sagittal"}
LETTERS = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
"""What lies at the left, the right, the top and the bottom of a picture."""

HOUNSFIELD_WINDOW = (-160.0, 240.0)
AIR = -500.0
INCHES = 9.0
PICTURE_INCHES = 4.5
"""Of the longer side of a 2D picture."""


class _Plane(NamedTuple):
    name: str
    place: int
    image: np.ndarray
    label: np.ndarray
    core: np.ndarray
    pixel_aspect: float
    width: float
    height: float


def class_colors(class_names: Mapping[int, str]) -> dict[int, str]:
    """Give every class a color that is seen on gray images, the same in all pictures.

    Args:
        class_names: names of the classes.
    """
    numbers = sorted(class_names)
    places = numbers if max(numbers, default=0) <= len(CLASS_COLORS) else range(1, 1 + len(numbers))
    return {
        number: CLASS_COLORS[(place - 1) % len(CLASS_COLORS)] for number, place in zip(numbers, places, strict=True)
    }


def preview_figure(
    image: np.ndarray | torch.Tensor,
    label: np.ndarray | torch.Tensor,
    class_names: Mapping[int, str],
    affine: np.ndarray | torch.Tensor,
    title: str = "",
    sure: np.ndarray | torch.Tensor | None = None,
) -> Figure:
    """Draw a scan in three planes, with the contours of its classes.

    Each plane is that with most labeled voxels, or the middle one, turned as radiologists look at it
    (:func:`monai_fewshot.visualize.orient_slice`), with letters that say what lies where and one scale in millimeters
    for all. Oblique scans are shown along their own axes. Gray values reach from the 1st to the 99.5th percentile;
    images with values below -500 are taken for CT and shown from -160 to 240 HU, a window of soft tissue.

    Args:
        image: (H, W, D) intensities as they were acquired.
        label: (H, W, D) class numbers.
        class_names: the classes.
        affine: (4, 4) from voxels to RAS millimeters.
        title: above the pictures.
        sure: (H, W, D), true where the network is sure: parts of a class that have dotted contours. None for none.

    Returns:
        A figure that belongs to no global state; :func:`monai_fewshot.visualize.figure_to_png` renders it.
    """
    voxels, numbers, to_space = (np.asarray(convert_to_numpy(array)) for array in (image, label, affine))
    low, high = gray_window(voxels)
    core = np.zeros_like(numbers) if sure is None else numbers * np.asarray(convert_to_numpy(sure), dtype=bool)
    planes = _planes(voxels, numbers, core, to_space)
    scale = INCHES / sum(plane.width for plane in planes)
    figure = Figure(figsize=(INCHES, scale * max(plane.height for plane in planes) + 0.9), layout="constrained")
    grid = figure.subplots(1, 3, squeeze=False, width_ratios=[plane.width for plane in planes])[0]
    by_number = class_colors(class_names)
    colors = {class_names[number]: color for number, color in by_number.items()}
    for axes, plane in zip(grid, planes, strict=True):
        gray = np.clip((plane.image - low) / max(high - low, 1e-6), 0, 1)
        outlines, cores = (
            {name: part == number for number, name in class_names.items()} for part in (plane.label, plane.core)
        )
        draw_panel(axes, Panel(gray, outlines, f"{plane.name} {plane.place}", plane.pixel_aspect, colors, cores))
        axes.images[0].set_clim(0, 1)
        axes.set_facecolor("black")
        _draw_letters(axes, LETTERS[plane.name])
    _draw_legend(
        figure, {class_names[number]: by_number[number] for number in np.unique(numbers) if number in by_number}
    )
    figure.suptitle(title, fontsize=9, parse_math=False)
    return figure


def picture_figure(
    image: np.ndarray,
    label: np.ndarray | torch.Tensor,
    class_names: Mapping[int, str],
    title: str = "",
    sure: np.ndarray | torch.Tensor | None = None,
) -> Figure:
    """Draw a 2D picture with the contours of its classes.

    Args:
        image: (C, H, W) levels from 0 to 255, of one channel or three.
        label: (H, W) class numbers.
        class_names: the classes.
        title: above the picture.
        sure: (H, W), as in :func:`preview_figure`.

    Returns:
        A figure as of :func:`preview_figure`.
    """
    numbers = np.asarray(convert_to_numpy(label))
    by_number = class_colors(class_names)
    colors = {class_names[number]: color for number, color in by_number.items()}
    core = np.zeros_like(numbers) if sure is None else numbers * np.asarray(convert_to_numpy(sure), dtype=bool)
    outlines, cores = ({name: part == number for number, name in class_names.items()} for part in (numbers, core))
    shown = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    height, width = (PICTURE_INCHES * pixels / max(numbers.shape) for pixels in numbers.shape)
    figure = Figure(figsize=(width, height + 0.7), layout="constrained")
    axes = figure.subplots()
    draw_panel(axes, Panel(shown / 255, outlines, "", 1.0, colors, cores))
    axes.images[0].set_clim(0, 1)
    _draw_legend(figure, {class_names[n]: by_number[n] for n in np.unique(numbers) if n in by_number})
    figure.suptitle(title, fontsize=9, parse_math=False)
    return figure


def gray_window(image: np.ndarray) -> tuple[float, float]:
    """Lowest and highest intensity that a picture of a scan (H, W, D) tells apart, see :func:`preview_figure`."""
    if image.min() < AIR:
        return HOUNSFIELD_WINDOW
    low, high = np.percentile(image[::2, ::2], (1, 99.5))
    return float(low), float(high)


def _planes(image: np.ndarray, label: np.ndarray, core: np.ndarray, affine: np.ndarray) -> list[_Plane]:
    """Return the planes across the three axes, the axial one first."""
    codes = aff2axcodes(affine)
    axes = sorted(range(3), key=lambda axis: PLANES[codes[axis]])
    return [_plane(image, label, core, affine, axis, PLANES[codes[axis]]) for axis in axes]


def _plane(image: np.ndarray, label: np.ndarray, core: np.ndarray, affine: np.ndarray, axis: int, name: str) -> _Plane:
    others = tuple(other for other in range(3) if other != axis)
    counts = np.count_nonzero(label, axis=others)
    index = int(counts.argmax()) if counts.any() else label.shape[axis] // 2
    order = [*others, axis, 3]
    gray, aspect = orient_slice(image.take(index, axis), affine[:, order])
    classes, sure = (orient_slice(part.take(index, axis), affine[:, order])[0] for part in (label, core))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    area = np.prod([spacing[other] for other in others])
    pixel_width = float(np.sqrt(area / aspect))
    rows, columns = gray.shape
    return _Plane(name, index, gray, classes, sure, aspect, columns * pixel_width, rows * pixel_width * aspect)


def _draw_letters(axes: Axes, letters: str) -> None:
    places = [(0.015, 0.5, "left", "center"), (0.985, 0.5, "right", "center")]
    places += [(0.5, 0.98, "center", "top"), (0.5, 0.02, "center", "bottom")]
    for letter, (x, y, horizontal, vertical) in zip(letters, places, strict=True):
        axes.text(
            x,
            y,
            letter,
            ha=horizontal,
            va=vertical,
            transform=axes.transAxes,
            color="white",
            fontsize=9,
            fontweight="bold",
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )


def _draw_legend(figure: Figure, colors: Mapping[str, str]) -> None:
    handles = [
        figure.axes[0].plot([], [], "s", color=color, label=name, markersize=6)[0] for name, color in colors.items()
    ]
    if handles:
        legend = figure.legend(
            handles=handles, loc="outside lower center", ncols=min(len(handles), 5), frameon=False, fontsize=8
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
