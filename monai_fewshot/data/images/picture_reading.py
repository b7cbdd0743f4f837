# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.config import PathLike
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

__all__ = ["as_shown", "gray_of", "lost_in_reading"]

BITS_PER_SAMPLE = 258
PNG_DEPTH = 24
WITH_ALPHA = ("LA", "RGBA", "PA", "La", "RGBa")


def as_shown(picture: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF data say, and give one whose palette has white before black gray levels instead.

    Args:
        picture: as it was opened.

    Returns:
        The picture as viewers show it; the indices of other palettes, which are class numbers in a mask, stay.
    """
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "P":
        palette = np.array(upright.getpalette("RGB")).reshape(-1, 3)
        colors = [tuple(palette[index]) for index in np.unique(np.array(upright))]
        if colors == [(255, 255, 255), (0, 0, 0)]:
            return upright.convert("L")
    return upright


def gray_of(mask: torch.Tensor) -> torch.Tensor:
    """Find the one channel of a mask that has several.

    Colors must be equal. Transparency counts where it alone tells pixels apart, one value for what is annotated and
    0 for the rest, and does not where it is the same everywhere, or 0 only where the color is black.

    Args:
        mask: (C, H, W), with ``mode`` in its meta-data where PIL read it.

    Returns:
        The channel (1, H, W); the mask where there is no such channel.
    """
    mode = getattr(mask, "meta", {}).get("mode")
    has_alpha = mode in WITH_ALPHA if mode else len(mask) in (2, 4)
    colors = mask[:-1] if has_alpha else mask
    gray, alpha = colors[:1], mask[-1:]
    if bool((colors != gray).any()) or mode == "CMYK":
        return mask
    if not has_alpha or bool((alpha == alpha.flatten()[0]).all()):
        return gray
    if bool((gray == gray.flatten()[0]).all()):
        return (alpha > 0) * 255 if len(alpha.unique()) == 2 and not alpha.min() else mask
    return mask if bool(gray[alpha == 0].any()) else gray


def lost_in_reading(path: PathLike, remedy: str = "save one channel, 8 bits a pixel.") -> str:
    """Say what a file holds that its pixels no longer show once they are read.

    Args:
        path: of the picture; nothing is said of one that is not there.
        remedy: what to do where colors of 16 bits are read as 8.

    Returns:
        What is lost and what to do; empty where nothing is.
    """
    if not path or not Path(path).is_file():
        return ""
    with Image.open(path) as picture:
        pages, bands, kind = getattr(picture, "n_frames", 1), len(picture.getbands()), picture.format
        depths = picture.tag_v2.get(BITS_PER_SAMPLE, (8,)) if isinstance(picture, TiffImageFile) else (8,)
    if pages > 1 and kind != "MPO":
        return f"holds {pages} pictures; save each as a file of its own."
    if kind == "PNG":
        with open(path, "rb") as file:
            depths = tuple(file.read(PNG_DEPTH + 1)[PNG_DEPTH:])
    return f"has 16 bits a channel; {remedy}" if bands > 1 and max(depths) > 8 else ""
