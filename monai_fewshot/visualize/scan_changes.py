# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from monai_fewshot.utils import write_atomically

from .overlay import Panel, draw_panel, orient_slice
from .page import render_page
from .scan_previews import class_colors, gray_window

__all__ = ["ScanChange", "change_figure", "write_change_page"]

INCHES = 4.2
"""Width of one of the two pictures."""


class ScanChange(NamedTuple):
    """What a page shows of a scan whose mask was made anew.

    Attributes:
        name: of the scan.
        dice: between the mask before and the one after, by class number.
        picture: PNG.
    """

    name: str
    dice: Mapping[int, float]
    picture: bytes


def change_figure(
    image: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    class_names: Mapping[int, str],
    affine: np.ndarray,
) -> Figure:
    """Draw the slice of a scan in which two masks differ most, with one of them at the left and the other at the right.

    Slices run along the axis in which voxels are farthest apart, and are turned as radiologists look at them.

    Args:
        image: (H, W, D) intensities.
        before: (H, W, D) class numbers.
        after: likewise.
        class_names: the classes.
        affine: (4, 4) from voxels to RAS millimeters.

    Returns:
        A figure that belongs to no global state.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axis = 2 if spacing[2] > 0.99 * spacing.max() else int(spacing.argmax())
    place = _place_of_change(before, after, axis)
    order = [*(other for other in range(3) if other != axis), axis, 3]
    gray, aspect = orient_slice(image.take(place, axis), affine[:, order])
    low, high = gray_window(image)
    colors = {class_names[number]: color for number, color in class_colors(class_names).items()}
    height = INCHES * aspect * gray.shape[0] / gray.shape[1]
    figure = Figure(figsize=(2 * INCHES, height + 0.5), layout="constrained")
    for axes, mask, title in zip(figure.subplots(1, 2), (before, after), ("before", "after"), strict=True):
        numbers, _ = orient_slice(mask.take(place, axis), affine[:, order])
        outlines = {name: numbers == number for number, name in class_names.items()}
        shown = np.clip((gray - low) / max(high - low, 1e-6), 0, 1)
        draw_panel(axes, Panel(shown, outlines, f"{title}, slice {place}", aspect, colors))
        axes.images[0].set_clim(0, 1)
    return figure


def write_change_page(
    path: Path,
    changes: Sequence[ScanChange],
    class_names: Mapping[int, str],
    corrected: Collection[str],
    table: str,
    provenance: Mapping[str, Any],
) -> Path:
    """Write a page of masks before and after, the scan whose mask has changed most first.

    Args:
        path: the page.
        changes: one for each scan.
        class_names: names by number.
        corrected: names of the scans whose mask a person has corrected; they come last.
        table: name of the file of the figures, beside the page.
        provenance: what made the masks.

    Returns:
        The path.
    """
    means = {change.name: sum(change.dice.values()) / max(1, len(change.dice)) for change in changes}
    order = sorted(changes, key=lambda change: (change.name in corrected, means[change.name], change.name))
    html = render_page(
        "scan_changes.html",
        provenance,
        title="What has changed",
        changes=order,
        means=means,
        classes=dict(class_names),
        colors=class_colors(class_names),
        corrected=set(corrected),
        table=table,
    )
    return write_atomically(path, html)


def _place_of_change(before: np.ndarray, after: np.ndarray, axis: int) -> int:
    """The slice in which most voxels differ; where none does, that with most of the classes, or the middle one."""
    others = tuple(other for other in range(3) if other != axis)
    for voxels in (before != after, after > 0):
        counts = np.count_nonzero(voxels, axis=others)
        if counts.any():
            return int(counts.argmax())
    return before.shape[axis] // 2
