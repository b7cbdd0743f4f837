# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from nibabel.orientations import aff2axcodes

__all__ = ["Panel", "draw_panel", "figure_to_array", "figure_to_png", "orient_slice", "overlay_figure"]

COLORS = {"ground truth": "#ffe14d", "support": "#ffe14d", "prediction": "#ff4f64"}


@dataclass(frozen=True)
class Panel:
    """An image slice with outlines drawn on it.

    Attributes:
        image: (rows, columns) gray, or (rows, columns, 3) RGB in 0 to 1 or 0 to 255, as they are shown.
        outlines: masks (rows, columns) by name; names in ``COLORS`` have a color of their own.
        title: above the image.
        pixel_aspect: height of a pixel over its width.
        colors: colors of further names, or other ones.
        cores: a second, dotted outline by name, of what lies in the first one.
    """

    image: np.ndarray
    outlines: Mapping[str, np.ndarray] = field(default_factory=dict)
    title: str = ""
    pixel_aspect: float = 1.0
    colors: Mapping[str, str] = field(default_factory=dict)
    cores: Mapping[str, np.ndarray] = field(default_factory=dict)


def orient_slice(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, float]:
    """Turn a slice the way radiologists look at it; for pictures only.

    Axial slices get the patient's anterior side up and the left side at the right, coronal slices the head up and the
    left side at the right, sagittal slices the head up and the anterior side at the left. Oblique slices go by the
    nearest of these. Pixels are moved, never interpolated.

    Args:
        array: (..., H, W) of a volume (H, W, D).
        affine: (4, 4) from voxels to RAS millimeters.

    Returns:
        (..., rows, columns) and the height of a pixel over its width.

    Example:
        >>> of_ras_volume = np.array([["left back", "left front"], ["right back", "right front"]])
        >>> orient_slice(of_ras_volume, np.eye(4))[0].tolist()
        [['right front', 'left front'], ['right back', 'left back']]
    """
    codes, spacing = aff2axcodes(affine), np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    horizontal = 0 if codes[0] in "LR" or codes[1] in "SI" else 1
    vertical = 1 - horizontal
    array = np.swapaxes(array, -1, -2) if horizontal == 0 else array
    columns = slice(None, None, 1 if codes[horizontal] in "LP" else -1)
    rows = slice(None, None, 1 if codes[vertical] in "IP" else -1)
    return array[..., rows, columns], float(spacing[vertical] / spacing[horizontal])


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Show a slice and its outlines in matplotlib axes.

    Args:
        axes: where to draw.
        panel: what to draw. Empty masks leave no outline.
    """
    _check(panel)
    image = np.asarray(panel.image)
    axes.imshow(image, cmap="gray", aspect=panel.pixel_aspect, interpolation="nearest")
    for outlines, width, style in ((panel.outlines, 1.4, "solid"), (panel.cores, 0.9, "dotted")):
        for name, mask in outlines.items():
            padded = np.pad(np.asarray(mask, dtype=float), 1)
            if padded.any():
                rows, columns = (np.arange(-1, size + 1) for size in image.shape[:2])
                color = {**COLORS, **panel.colors}[name]
                axes.contour(columns, rows, padded, levels=[0.5], colors=[color], linewidths=width, linestyles=style)
    axes.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5), xticks=[], yticks=[])
    axes.set_title(panel.title, fontsize=8, parse_math=False)


def overlay_figure(panels: Sequence[Panel], columns: int = 4) -> Figure:
    """Lay panels out in a grid: an episode's supports and its query, or slices of a scan.

    Args:
        panels: at least one.
        columns: panels a row.

    Returns:
        A figure that belongs to no global state; :func:`figure_to_png` and :func:`figure_to_array` render it.

    Example:
        >>> square = np.zeros((32, 32), dtype=bool)
        >>> square[8:24, 8:24] = True
        >>> figure = overlay_figure([Panel(np.random.rand(32, 32), {"ground truth": square}, "query")])
        >>> figure_to_array(figure).shape
        (260, 260, 3)
    """
    if not panels:
        raise ValueError("overlay_figure needs at least one panel.")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.6 * rows), dpi=100, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        draw_panel(axes, panel)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure


def figure_to_png(figure: Figure, dpi: int = 130) -> bytes:
    """Render a figure as a PNG file.

    Args:
        figure: the figure.
        dpi: pixels an inch.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def figure_to_array(figure: Figure) -> np.ndarray:
    """Render a figure as an image, as TensorBoard's ``add_image(..., dataformats="HWC")`` takes it.

    Args:
        figure: the figure.

    Returns:
        (rows, columns, 3) uint8.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _check(panel: Panel) -> None:
    size = np.shape(panel.image)[:2]
    known = {**COLORS, **panel.colors}
    for name, mask in [*panel.outlines.items(), *panel.cores.items()]:
        if np.shape(mask) != size:
            raise ValueError(f"The outline {name!r} has shape {np.shape(mask)}, but its image has {size}.")
        if name not in known:
            raise ValueError(f"The outline {name!r} has no color. Use one of {sorted(COLORS)}, or give it in colors.")
