# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
from collections.abc import Collection, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import ImageReader, PILReader
from monai.transforms import Compose, LoadImaged, MapTransform
from monai.utils import convert_to_tensor
from tqdm import tqdm

from monai_fewshot.data.files.file_damage import check_picture
from monai_fewshot.utils import IGNORED, file_of, list_values, root_cause

from .picture_reading import as_shown, gray_of, lost_in_reading

__all__ = ["CheckImageD", "CheckImageDict", "CheckImaged", "check_images", "image_reading"]

MODES = {1: "L", 3: "RGB"}
REMEDIES = {
    "L": "is a gray image",
    "1": "is an image of black and white",
    "LA": "is a gray image with transparency",
    "RGB": "is a color image",
    "RGBA": "has a fourth channel, transparency",
    "P": "has a palette instead of colors",
    "CMYK": "has the four colors of print",
    "I;16": "has 16 bits a pixel",
    "I": "has 32 bits a pixel",
    "F": "has floating-point pixels",
}


class CheckImaged(MapTransform):
    """Check a loaded 2D image and its mask, and make of the mask a map of class numbers.

    It stands right after ``LoadImaged`` (:func:`image_reading` is both), which keeps what the file said of itself. An
    image must have the channels that are asked for, 8 bits each. A mask must be of the image's size and of one channel,
    or of equal ones, as FSS-1000 has them.
    A binary mask (an item with ``class_number``) must have two values, or one ``mask_threshold`` to tell them apart,
    and some foreground; a mask of class numbers may hold 0, 255 (ignored) and ``classes``.

    Args:
        keys: keys of the images, (C, H, W).
        label_key: key of the mask, (1, H, W).
        channels: 3 for color images, 1 for gray ones.
        classes: numbers that a mask of class numbers may hold; None for any.
        allow_missing_keys: whether an absent image is passed over.

    All problems of an image make one ValueError, a line each, which begins with the file.

    Example:
        >>> item = {"image": torch.zeros(3, 4, 4), "label": 255 * torch.eye(4)[None], "class_number": 7}
        >>> CheckImaged("image")(item)["label"].unique()
        tensor([0, 7], dtype=torch.uint8)
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        label_key: str = "label",
        channels: int = 3,
        classes: Collection[int] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if channels not in MODES:
            raise ValueError(f"channels is {channels}, must be 3 for color images or 1 for gray ones.")
        self.label_key = label_key
        self.channels = channels
        self.classes = classes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check an image.

        Args:
            data: the item.

        Returns:
            The item, images as bytes and the mask as a map of class numbers (1, H, W).

        Raises:
            ValueError: where there are problems; all are listed.
        """
        d = dict(data)
        images = list(self.key_iterator(d))
        found = [(key, problem) for key in images for problem in self._image_problems(d[key])]
        if self.label_key in d:
            lost = lost_in_reading(file_of(d[self.label_key], ""))
            mask = d[self.label_key] = gray_of(d[self.label_key])
            of_mask = [lost] if lost else self._mask_problems(mask, d)
            sizes = [(self.label_key, problem) for key in images for problem in self._size_problems(d[key], mask)]
            found += sizes + [(self.label_key, problem) for problem in of_mask]
        if found:
            raise ValueError("\n".join(f"{file_of(d[key], key)}: {problem}" for key, problem in found))
        for key in images:
            d[key] = d[key].to(torch.uint8)
        if self.label_key in d:
            number = int(d.get("class_number", 1))
            mask = d[self.label_key] if "class_number" not in d else d[self.label_key] > d.get("mask_threshold", 0)
            d[self.label_key] = mask.to(torch.uint8 if number < IGNORED else torch.int16) * number
        return d

    def _image_problems(self, image: torch.Tensor) -> list[str]:
        expected = MODES[self.channels]
        mode = getattr(image, "meta", {}).get("mode", expected)
        remedy = (
            f"expected {'colors (RGB)' if self.channels == 3 else 'gray levels'}, 8 bits a channel. Convert it, e.g. "
            f'with PIL.Image.open(file).convert("{expected}"){self._other_channels(mode)}.'
        )
        if lost := lost_in_reading(file_of(image, ""), remedy):
            return [lost]
        if mode == expected and image.shape[0] == self.channels:
            return []
        if mode == expected:
            return [f"has {image.shape[0]} channels; {remedy}"]
        return [f"{REMEDIES.get(mode, f'is of the mode {mode}')}; {remedy}"]

    def _other_channels(self, mode: str) -> str:
        other = {1: "L", 3: "RGB"}
        wanted = next((channels for channels, m in other.items() if m == mode and channels != self.channels), None)
        return "" if wanted is None else f", or ask for channels={wanted} where all images are like this"

    def _size_problems(self, image: torch.Tensor, mask: torch.Tensor) -> list[str]:
        if image.shape[1:] == mask.shape[1:]:
            return []
        return [
            f"is a mask of {mask.shape[1]} x {mask.shape[2]} pixels (rows x columns), its image has "
            f"{image.shape[1]} x {image.shape[2]}; export it again in the image's size."
        ]

    def _mask_problems(self, mask: torch.Tensor, d: Mapping[Hashable, Any]) -> list[str]:
        if mask.shape[0] != 1:
            return [
                f"is a mask of {mask.shape[0]} channels that differ; save it as one channel of class numbers, or of 0 "
                "and 255."
            ]
        values = convert_to_tensor(mask, track_meta=False).unique()
        if "class_number" not in d:
            allowed = torch.tensor([0, IGNORED, *self.classes] if self.classes is not None else range(IGNORED + 1))
            odd = values[~torch.isin(values.cpu(), allowed)]
            if not len(odd):
                return []
            return [f"holds {list_values(odd)}, which are no classes; expected 0, 255 (ignored) or numbers of classes."]
        threshold = d.get("mask_threshold")
        if threshold is None and len(values) > 2:
            return [
                f"holds {len(values)} gray levels ({list_values(values)}) where a binary mask has two, as JPEG "
                "compression makes them; save it as PNG, or give a mask_threshold such as 127."
            ]
        if threshold is None and len(values) == 2 and values[0] != 0:
            return [f"holds {list_values(values)}, but no 0 for the background; save it with 0 and 255."]
        if not (values > (threshold or 0)).any():
            return ["is empty, no pixel is foreground; annotate it, or leave the image out."]
        return []


CheckImageD = CheckImageDict = CheckImaged


class _WholeImaged(LoadImaged):
    """MONAI's, which refuses what :func:`~monai_fewshot.data.files.file_damage.check_picture` does."""

    def __call__(self, data: Mapping[Any, Any], reader: ImageReader | None = None) -> dict[Any, Any]:
        for path in (data[key] for key in self.keys if key in data):
            check_picture(path)
        return super().__call__(data, reader)


def image_reading(
    keys: Sequence[str] = ("image", "label"), channels: int = 3, classes: Collection[int] | None = None
) -> Compose:
    """Read 2D images and masks as (C, H, W), rows first, 8 bits, and check them (:class:`CheckImaged`).

    Args:
        keys: of the image and of its mask, which may be absent.
        channels: 3 for color images, 1 for gray ones.
        classes: see :class:`CheckImaged`.
    """
    load = _WholeImaged(
        keys,
        reader=PILReader(converter=as_shown, reverse_indexing=False),
        image_only=True,
        ensure_channel_first=True,
        allow_missing_keys=True,
    )
    return Compose([load, CheckImaged(keys[0], keys[-1], channels, classes)])


def check_images(
    images: Sequence[Mapping[str, Any]],
    channels: int = 3,
    classes: Collection[int] | None = None,
    num_workers: int = 4,
) -> None:
    """Read all images of a set and report every problem at once, before hours are spent.

    Args:
        images: as in :class:`~monai_fewshot.data.ImageSet`.
        channels: see :class:`CheckImaged`.
        classes: see :class:`CheckImaged`.
        num_workers: number of threads.

    Raises:
        ValueError: where there are problems: one line each, naming the file.
    """
    own = threading.local()

    def problems(image: Mapping[str, Any]) -> list[str]:
        missing = [image[key] for key in ("image", "label") if key in image and not Path(image[key]).is_file()]
        if missing:
            return [f"{path}: is missing; restore it, or take its image out of the set." for path in missing]
        if not hasattr(own, "load"):
            own.load, own.check = image_reading(channels=channels, classes=classes).transforms
        try:
            read = own.load(dict(image))
        except ValueError as error:
            return [str(error)]
        except Exception as error:
            reason = str(root_cause(error)).strip().splitlines()[-1]
            return [f"{image['image']} or its mask: cannot be opened as an image ({reason}); export it again."]
        try:
            own.check(read)
        except ValueError as error:
            return str(error).splitlines()
        return []

    with ThreadPoolExecutor(num_workers) as pool:
        found = list(tqdm(pool.map(problems, images), "checking images", total=len(images), disable=None))
    lines = [line for problem in found for line in problem]
    if lines:
        raise ValueError(
            f"{len(lines)} problem(s) in {sum(map(bool, found))} of {len(images)} images:\n" + "\n".join(lines)
        )
