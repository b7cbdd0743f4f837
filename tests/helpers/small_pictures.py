# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Small pictures of a red ellipse on a green and blue ground, which is as bright."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIZES = {"a": (40, 56), "b": (48, 48), "c": (51, 37), "d": (40, 56), "e": (44, 44), "f": (36, 60)}


def picture(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Colors (H, W, 3) and mask (H, W)."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]] / np.reshape(size, (2, 1, 1))
    inside = (((rows - random.uniform(0.4, 0.6)) / 0.3) ** 2 + ((columns - random.uniform(0.4, 0.6)) / 0.25) ** 2) < 1
    colors = np.where(inside[..., None], [200, 80, 80], [80, 140, 140]) + random.normal(scale=8, size=(*size, 3))
    return colors.clip(0, 255).astype(np.uint8), inside


def write_pictures(folder: Path, names: str = "abcdef", mode: str = "RGB") -> Path:
    """Write ``images/NAME.png`` and ``masks/NAME.png`` of 0 and 255.

    Returns:
        The folder.
    """
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        colors, inside = picture(seed, SIZES[name])
        Image.fromarray(colors).convert(mode).save(folder / "images" / f"{name}.png")
        Image.fromarray(np.where(inside, 255, 0).astype(np.uint8)).save(folder / "masks" / f"{name}.png")
    return folder
