# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.config import PathLike
from monai.transforms import Compose, Lambdad, MapTransform, Resized
from monai.utils import ensure_tuple

from monai_fewshot.apps.prepare.cases.case import Case
from monai_fewshot.apps.prepare.dataset_description import DatasetDescription
from monai_fewshot.apps.prepare.runner import prepare_dataset
from monai_fewshot.apps.prepare.sources.data_source import open_source
from monai_fewshot.data import ImageAsVolumed, image_reading, load_image_set
from monai_fewshot.utils import EpisodeKeys

__all__ = ["GrayLevelsD", "GrayLevelsDict", "GrayLevelsd", "find_image_cases", "prepare_images"]

KEYS = (str(EpisodeKeys.IMAGE), str(EpisodeKeys.LABEL))
OPTIONAL = {"allow_missing_keys": True}
LUMA = (0.299, 0.587, 0.114)


class GrayLevelsd(MapTransform):
    """Make gray images (1, *S) of whole levels, of color ones (3, *S) by the weights of ITU-R BT.601.

    Example:
        >>> GrayLevelsd("image")({"image": torch.tensor([255.0, 0, 0]).reshape(3, 1, 1)})["image"].item()
        76.0
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the images of a dictionary."""
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key]
            if image.shape[0] == len(LUMA):
                image = (image * torch.tensor(LUMA).reshape(-1, *[1] * (image.ndim - 1))).sum(0, keepdim=True)
            d[key] = image.round()
        return d


GrayLevelsD = GrayLevelsDict = GrayLevelsd


def prepare_images(
    source: PathLike,
    output_dir: PathLike,
    name: str | None = None,
    layout: str = "auto",
    class_names: Sequence[str] | None = None,
    mask_threshold: int | None = None,
    channels: int = 3,
    size: int = 256,
    colors: bool = False,
    workers: int | None = None,
    num_folds: int = 5,
    skip_broken: bool = False,
) -> Path:
    """Make of 2D images and their masks volumes of one slice, gray or of color, for methods that segment volumes.

    So all methods, protocols and the benchmark take them as they take scans. A pixel counts as 1 x 1 mm: distances are
    in pixels.

    Args:
        source: the folder or archive; :func:`monai_fewshot.data.load_image_set` tells the layouts.
        output_dir: folder to write to.
        name: of the data set. Defaults to None, the name of the folder.
        layout: of the folder.
        class_names: in the order of the numbers from 1; two or more mean that masks hold class numbers. Defaults to
            None, what the layout tells.
        mask_threshold: gray level above which pixels of a binary mask are foreground, for masks stored as JPEG.
        channels: 3 for color images, 1 for gray ones.
        size: pixels of the longer side; the shorter one keeps its proportion.
        colors: whether colors are kept, as three channels, for methods that take them (self-training with
            ``--channels 3``).
        workers: processes, as for :func:`monai_fewshot.apps.prepare.prepare_dataset`.
        num_folds: folds of the cross-validation, 0 for none.
        skip_broken: whether to leave out images that have problems instead of stopping.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: if there is no such source, or no image in it.
        ValueError: if there are problems, one line each, or an argument is out of its range.
        FileExistsError: if the folder holds something else.
    """
    if size < 1:
        raise ValueError(f"size is {size}; give the pixels of the longer side, such as 256.")
    reading = Compose(
        [
            image_reading(KEYS, channels),
            Resized(KEYS, size, "longest", ("bilinear", "nearest-exact"), anti_aliasing=(True, False), **OPTIONAL),
            Lambdad(KEYS[0], torch.round) if colors else GrayLevelsd(KEYS[0]),
            ImageAsVolumed(KEYS, **OPTIONAL),
        ]
    )
    folder = open_source(source, output_dir)
    cases, items, found_names = find_image_cases(folder, layout, class_names, mask_threshold)
    kind = "color" if colors else "gray"
    text = f"{kind.capitalize()} volumes of one slice, made of 2D images."
    description = DatasetDescription(name or Path(folder).name, kind, found_names, text)
    numbers = {
        "layout": layout,
        "class_names": class_names,
        "mask_threshold": mask_threshold,
        "channels": channels,
        "size": size,
        **({"colors": True} if colors else {}),
    }
    return prepare_dataset(
        cases,
        (),
        partial(_load, items=items, reading=reading),
        dict,
        description,
        folder,
        output_dir,
        numbers,
        workers=workers,
        num_folds=num_folds,
        skip_broken=skip_broken,
        num_channels=channels if colors else 1,
    )


def find_image_cases(
    folder: Path, layout: str = "auto", class_names: Sequence[str] | None = None, mask_threshold: int | None = None
) -> tuple[list[Case], dict[str, dict[str, Any]], dict[int, str]]:
    """List images and masks.

    Args:
        folder: which holds them.
        layout: of the folder.
        class_names: in the order of the numbers from 1; None for what the layout tells.
        mask_threshold: of binary masks.

    Returns:
        The images as scans to prepare, what :class:`monai_fewshot.data.ImageSet` says of each by its name, and names
        of classes by number. Names of folders are joined to those of files by "_".

    Raises:
        FileNotFoundError: where there is no image.
        ValueError: where the layout is not recognized, or images and masks do not pair.
    """
    names = None if class_names is None else dict(enumerate(ensure_tuple(class_names), 1))
    image_set = load_image_set(folder, layout, names, mask_threshold)
    items = {str(image["name"]).replace("/", "_"): image for image in image_set.images}
    cases = [
        Case(name, (Path(item["image"]),), (Path(item["label"]),) if "label" in item else ())
        for name, item in items.items()
    ]
    return cases, items, image_set.class_names


def _load(case: Case, items: Mapping[str, dict[str, Any]], reading: Compose) -> dict[str, Any]:
    read = reading(items[case.name])
    return {key: read[key] for key in KEYS if key in read}
