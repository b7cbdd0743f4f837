# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import ImageMetaKey, convert_to_tensor
from PIL import Image

from monai_fewshot.data.files.file_damage import check_picture
from monai_fewshot.utils import list_values

from .image_checks import CheckImaged
from .image_layouts import JPEG_THRESHOLD
from .image_volumes import ImageAsVolumed
from .picture_reading import as_shown, gray_of, lost_in_reading

__all__ = ["load_picture", "load_picture_mask", "picture_channels"]

GRAY_MODES = ("1", "L", "LA", "I", "I;16", "F")
VISIBLE = (255, 65535)
MODE = "mode"


def load_picture(path: Path) -> MetaTensor:
    """Load a picture (PNG, JPEG, BMP, TIFF) as a volume of one slice.

    Args:
        path: of the file.

    Returns:
        (3, H, W, 1) of a color picture, (1, H, W, 1) of a gray one, levels from 0 to 255, float32.

    Raises:
        ValueError: where it cannot be read, or has other channels, transparency or other than 8 bits a channel; the
            text names the file.
    """
    pixels = _read(path)
    checked = CheckImaged("image", channels=_channels(pixels.meta[MODE]))({"image": pixels})
    volume = ImageAsVolumed("image")(checked)["image"]
    return MetaTensor(volume.float(), meta=volume.meta)


def load_picture_mask(path: Path, image: torch.Tensor | None = None) -> MetaTensor:
    """Load the mask of a picture as a volume of one slice.

    A mask of 0 and 255, or 0 and 65535, holds one class, number 1, and so does one in JPEG, whose levels above 127
    count. Others hold class numbers.

    Args:
        path: of the file.
        image: the picture (C, H, W, 1), which must be of the same size; None where it is not known.

    Returns:
        (1, H, W, 1), class numbers, float32.

    Raises:
        ValueError: where it cannot be read, is of another size, or holds something else; the text names the file.
    """
    pixels = _read(path)
    if lost := lost_in_reading(path):
        raise ValueError(f"{path}: {lost}")
    mask = gray_of(pixels)
    if len(mask) != 1:
        raise ValueError(
            f"{path}: is a mask of {len(mask)} channels that differ; save it as one channel of class numbers, or of 0 "
            "and 255."
        )
    if image is not None and mask.shape[1:] != image.shape[1:3]:
        sizes = [f"{height} x {width}" for height, width in (mask.shape[1:], image.shape[1:3])]
        raise ValueError(
            f"{path}: is a mask of {sizes[0]} pixels (rows x columns), its image has {sizes[1]}; export it again in "
            "the image's size."
        )
    values = convert_to_tensor(mask, track_meta=False)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        values = (values > JPEG_THRESHOLD).float()
    shown = values.unique()
    if shown[0] != 0 and shown[0] not in VISIBLE:
        raise ValueError(
            f"{path}: holds {list_values(shown)}, but no 0 for the background; save it with 0 where nothing is."
        )
    if shown[-1] in VISIBLE:
        if len(shown) > 2:
            raise ValueError(
                f"{path}: holds {len(shown)} levels ({list_values(shown)}), {shown[-1]:g} among them; "
                "expected 0 and 255 alone, or class numbers below 255. Save it as PNG, without smooth edges."
            )
        values = (values > 0).float()
    return ImageAsVolumed("label")({"label": MetaTensor(values.float(), meta=pixels.meta)})["label"]


def picture_channels(path: Path) -> int:
    """Tell whether a picture is of color, 3, or gray, 1.

    Raises:
        ValueError: where it cannot be read.
    """
    return _channels(_read(path).meta[MODE])


def _channels(mode: str) -> int:
    return 1 if mode in GRAY_MODES else 3


def _read(path: Path) -> MetaTensor:
    """Read a picture as (C, H, W); ``mode`` of its meta data is what the file said of itself."""
    if not path.is_file():
        raise ValueError(f"{path}: is missing; correct its path, or restore the file.")
    check_picture(path)
    try:
        with Image.open(path) as image:
            upright = as_shown(image)
            mode, pixels = upright.mode, np.array(upright)
    except Exception as error:  # whatever damage makes a decoder raise
        reason = (str(error).splitlines() or [""])[0].replace(f" {str(path)!r}", "")
        raise ValueError(
            f"{path}: cannot be read as a picture ({reason}); copy it again, or export it anew."
        ) from error
    array = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1).astype(np.float32)).movedim(-1, 0)
    return MetaTensor(array, meta={MODE: mode, ImageMetaKey.FILENAME_OR_OBJ: str(path)})
