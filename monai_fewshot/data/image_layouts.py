# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .few_shot_folds import COCO_CLASSES, PASCAL_CLASSES

__all__ = ["IMAGE_SUFFIXES", "LAYOUTS", "image_files", "listed_images", "recognize"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MASK_SUFFIX = re.compile(r"[_-](segmentation|mask|masks|lesion|label|labels|gt|seg)$", re.IGNORECASE)
JPEG_THRESHOLD = 127
SHOWN = 10
COCO_PARTS = ("train2014", "val2014")

Image = dict[str, Any]
Found = tuple[list[Image], dict[int, str]]


def image_files(folder: Path) -> list[Path]:
    """List the visible image files directly in a folder."""
    files = (file for file in folder.iterdir() if not file.name.startswith("."))
    return sorted(file for file in files if file.suffix.lower() in IMAGE_SUFFIXES)


def recognize(folder: Path) -> str:
    """Name the layout of a folder.

    Raises:
        ValueError: where it is of none.
    """
    for layout, found in RECOGNIZED.items():
        if found(folder):
            return layout
    inside = ", ".join(sorted(path.name for path in folder.iterdir())[:SHOWN]) or "nothing"
    raise ValueError(
        f"{folder} is of no layout that is known ({', '.join(LAYOUTS)}); it holds {inside}. Give the folder with "
        "images/ and masks/, with one folder a class, or with the images themselves in it."
    )


def listed_images(list_file: Path, folder: Path) -> Iterator[Image]:
    """Read a list of Pascal-5i or COCO-20i, see :func:`monai_fewshot.data.load_image_list`."""
    if not list_file.is_file():
        raise FileNotFoundError(f"There is no list {list_file}.")
    pairs: dict[str, tuple[Path, Path]] = {}
    for number, line in enumerate(list_file.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        name, separator, _ = words[0].rpartition("__")
        if len(words) == 2:
            pair = folder / words[0], folder / words[1]
        elif len(words) == 1 and separator:
            pair = folder / "JPEGImages" / f"{name}.jpg", _pascal_masks(folder) / f"{name}.png"
        else:
            raise ValueError(f"{list_file}, line {number}: {line!r} is neither 'IMAGE MASK' nor 'NAME__CLASS'.")
        pairs[pair[0].stem] = pair
    missing = [str(path) for pair in pairs.values() for path in pair if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} files that {list_file} names are missing: {', '.join(missing[:SHOWN])}. Give the folder "
            "that the list's paths start from."
        )
    return ({"name": name, "image": str(image), "label": str(mask)} for name, (image, mask) in pairs.items())


def _plain(folder: Path) -> Found:
    images = [{"name": file.stem, "image": str(file)} for file in image_files(folder)]
    return _some(images, folder), {}


def _paired(
    folder: Path, images: str, masks: str, class_name: str = "foreground", threshold: int | None = None
) -> Found:
    """Pair the files of two folders by name, as the binary masks of one class."""
    for part in (images, masks):
        if not (folder / part).is_dir():
            raise FileNotFoundError(f"{folder} has no folder {part!r}; is it the data set that you named?")
    found = _pair(image_files(folder / images), image_files(folder / masks), folder)
    extra = {} if threshold is None else {"mask_threshold": threshold}
    return [{**image, "class_number": 1, **extra} for image in found], {1: class_name}


def _pairs(folder: Path) -> Found:
    images, masks = next(names for names in PAIR_FOLDERS if all((folder / name).is_dir() for name in names))
    return _paired(folder, images, masks)


def _class_folders(folder: Path) -> Found:
    images: list[Image] = []
    names = sorted(child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    for number, name in enumerate(names, 1):
        files = image_files(folder / name)
        masks = [file for file in files if file.suffix.lower() == ".png" or MASK_SUFFIX.search(file.stem)]
        pictures = [file for file in files if file not in masks]
        for image in _pair(pictures, masks, folder / name):
            images.append({**image, "name": f"{name}_{image['name']}", "class_number": number})
    return _some(images, folder), dict(enumerate(names, 1))


def _ph2(folder: Path) -> Found:
    root = folder / "PH2 Dataset images" if (folder / "PH2 Dataset images").is_dir() else folder
    cases = sorted(path for path in root.glob("IMD*") if path.is_dir())
    images = [file for case in cases for file in _files_under(case / f"{case.name}_Dermoscopic_Image")]
    masks = [file for case in cases for file in _files_under(case / f"{case.name}_lesion")]
    return [{**image, "class_number": 1} for image in _pair(images, masks, folder)], {1: "skin lesion"}


def _pascal(folder: Path) -> Found:
    masks = image_files(_pascal_masks(folder))
    stems = {mask.stem for mask in masks}
    images = [file for file in image_files(folder / "JPEGImages") if file.stem in stems]
    return _pair(images, masks, folder), PASCAL_CLASSES


def _coco(folder: Path) -> Found:
    images: list[Image] = []
    for part in COCO_PARTS:
        if (folder / part).is_dir():
            masks = image_files(folder / "annotations" / part)
            stems = {mask.stem for mask in masks}
            pictures = [file for file in image_files(folder / part) if file.stem in stems]
            images += _pair(pictures, masks, folder)
    return _some(images, folder), COCO_CLASSES


LAYOUTS: dict[str, Callable[[Path], Found]] = {
    "pairs": _pairs,
    "class_folders": _class_folders,
    "images": _plain,
    "isic2018": partial(
        _paired,
        images="ISIC2018_Task1-2_Training_Input",
        masks="ISIC2018_Task1_Training_GroundTruth",
        class_name="skin lesion",
    ),
    "ph2": _ph2,
    "kvasir_seg": partial(_paired, images="images", masks="masks", class_name="polyp", threshold=JPEG_THRESHOLD),
    "kvasir_capsule_seg": partial(
        _paired, images="images", masks="masks", class_name="polyp", threshold=JPEG_THRESHOLD
    ),
    "cvc_clinicdb": partial(
        _paired, images="Original", masks="Ground Truth", class_name="polyp", threshold=JPEG_THRESHOLD
    ),
    "pascal": _pascal,
    "coco": _coco,
}
PAIR_FOLDERS = (("images", "masks"), ("images", "labels"), ("imagesTr", "labelsTr"))


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda folder: all((folder / name).exists() for name in names)


RECOGNIZED: dict[str, Callable[[Path], bool]] = {
    "isic2018": _has("ISIC2018_Task1-2_Training_Input"),
    "ph2": lambda folder: (folder / "PH2 Dataset images").is_dir() or any(folder.glob("IMD*/IMD*_Dermoscopic_Image")),
    "kvasir_seg": _has("kavsir_bboxes.json", "images", "masks"),
    "cvc_clinicdb": _has("Original", "Ground Truth"),
    "pascal": lambda folder: (folder / "JPEGImages").is_dir() and _pascal_masks(folder).is_dir(),
    "coco": lambda folder: (folder / "annotations").is_dir() and any((folder / p).is_dir() for p in COCO_PARTS),
    "pairs": lambda folder: any(_has(*names)(folder) for names in PAIR_FOLDERS),
    "images": lambda folder: bool(image_files(folder)),
    "class_folders": lambda folder: any(image_files(child) for child in folder.iterdir() if child.is_dir()),
}


def _pascal_masks(folder: Path) -> Path:
    full = folder / "SegmentationClassAug"
    return full if full.is_dir() else folder / "SegmentationClass"


def _files_under(folder: Path) -> list[Path]:
    return image_files(folder) if folder.is_dir() else []


def _some(images: list[Image], folder: Path) -> list[Image]:
    if not images:
        raise FileNotFoundError(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)}).")
    return images


def _pair(images: Sequence[Path], masks: Sequence[Path], folder: Path) -> list[Image]:
    """Pair images with masks by name.

    Raises:
        FileNotFoundError: where there is no image.
        ValueError: where a file has no partner, or several.
    """
    by_stem: dict[str, list[Path]] = {}
    for mask in masks:
        by_stem.setdefault(MASK_SUFFIX.sub("", mask.stem), []).append(mask)
    stems = [image.stem for image in images]
    problems = _listed("images without a mask", (stem for stem in stems if stem not in by_stem))
    problems += _listed("masks without an image", by_stem.keys() - set(stems))
    problems += _listed("images with several masks", (stem for stem, found in by_stem.items() if len(found) > 1))
    problems += _listed("image names that occur twice", {stem for stem in stems if stems.count(stem) > 1})
    if problems:
        raise ValueError(
            f"{folder}: images and masks do not pair by name.\n" + "\n".join(problems) + "\nA mask is called after its "
            "image, with or without _segmentation, _mask or _lesion: rename them, or take out what has no partner."
        )
    found = [{"name": image.stem, "image": str(image), "label": str(by_stem[image.stem][0])} for image in images]
    return _some(found, folder)


def _listed(what: str, names: Iterable[str]) -> list[str]:
    found = sorted(names)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return [f"{len(found)} {what}: {', '.join(found[:SHOWN])}{more}"] if found else []
