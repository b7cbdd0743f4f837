# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Draw a segmented scan beside the annotated scan it was segmented after, and its true labels below."""

from __future__ import annotations

from pathlib import Path

import fire
import numpy as np
from matplotlib.lines import Line2D
from monai.data import MetaTensor
from monai.transforms import LoadImage, ScaleIntensityRangePercentiles

from monai_fewshot.utils import pixels_per_slice, write_atomically
from monai_fewshot.visualize import Panel, class_colors, figure_to_png, orient_slice, overlay_figure

CLASSES = {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}
COLORS = {CLASSES[number]: color for number, color in class_colors(CLASSES).items()}


def panel(image: MetaTensor, label: MetaTensor, z: int, title: str) -> Panel:
    """Outline the organs in a slice."""
    window = ScaleIntensityRangePercentiles(0.5, 99.5, 0, 1, clip=True)
    shown, aspect = orient_slice(np.asarray(window(image[0, ..., z])), image.affine.numpy())
    values = orient_slice(np.asarray(label[0, ..., z]), image.affine.numpy())[0]
    outlines = {name: values == number for number, name in CLASSES.items()}
    return Panel(shown, outlines, f"{title}, slice {z}", aspect, COLORS)


def main(support_image: str, support_label: str, image: str, label: str, mask: str, output: str) -> None:
    """Draw.

    Args:
        support_image: the annotated scan.
        support_label: its labels.
        image: the scan that was segmented.
        label: its true labels.
        mask: what was found.
        output: the PNG file.
    """
    load = LoadImage(ensure_channel_first=True)
    support, annotation, query, truth, found = map(load, (support_image, support_label, image, label, mask))
    both = [pixels_per_slice(volume, len(CLASSES)).sum(0) for volume in (annotation, truth)]
    at = [
        np.flatnonzero(pixels)[(np.array([0.35, 0.5, 0.65]) * np.count_nonzero(pixels)).astype(int)] for pixels in both
    ]
    panels = [
        *(panel(support, annotation, z, "annotated scan") for z in at[0][1:2]),
        *(panel(query, found, z, "found") for z in at[1]),
        *(panel(support, annotation, z, "annotated scan") for z in at[0][2:3]),
        *(panel(query, truth, z, "true") for z in at[1]),
    ]
    figure = overlay_figure(panels, columns=4)
    handles = [Line2D([], [], color=color, label=name) for name, color in COLORS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    write_atomically(Path(output), figure_to_png(figure, dpi=72))


if __name__ == "__main__":
    fire.Fire(main)
