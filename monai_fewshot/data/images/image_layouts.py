# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from monai_fewshot.data.layouts.scan_files import PICTURE_SUFFIXES, is_picture
from monai_fewshot.data.scans.scan_folder import DATASET_JSON, load_class_names, load_scans

from .few_shot_folds import COCO_CLASSES, PASCAL_CLASSES

__all__ = ["LAYOUTS", "image_files", "listed_images", "recognize"]

MASK_SUFFIX = re.compile(r"[_-](segmentation|mask|masks|lesion|label|labels|gt|seg)$", re.IGNORECASE)
JPEG_THRESHOLD = 127
SHOWN = 10
COCO_PARTS = ("train2014", "val2014")

Image = dict[str, Any]
ImagesAndClasses = tuple[list[Image], dict[int, str]]


def image_files(folder: Path) -> list[Path]:
    """List the visible image files directly in a folder."""
    return sorted(file for file in folder.iterdir() if is_picture(file) and not file.name.startswith("."))


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


def _plain(folder: Path) -> ImagesAndClasses:
    images = [{"name": file.stem, "image": str(file)} for file in image_files(folder)]
    return _some(images, folder), {}


def _paired(
    folder: Path, images: str, masks: str, class_name: str = "foreground", threshold: int | None = None
) -> ImagesAndClasses:
    """Pair the files of two folders by name, as the binary masks of one class."""
    for part in (images, masks):
        if not (folder / part).is_dir():
            raise FileNotFoundError(f"{folder} has no folder {part!r}; is it the data set that you named?")
    found = _pair(_named_by_path(folder / images), _named_by_path(folder / masks), folder)
    extra = {} if threshold is None else {"mask_threshold": threshold}
    return [{**image, "class_number": 1, **extra} for image in found], {1: class_name}


def _pairs(folder: Path) -> ImagesAndClasses:
    images, masks = next(names for names in PAIR_FOLDERS if all((folder / name).is_dir() for name in names))
    return _paired(folder, images, masks)


def _class_folders(folder: Path) -> ImagesAndClasses:
    images: list[Image] = []
    names = sorted(child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    for number, name in enumerate(names, 1):
        files = image_files(folder / name)
        marked = [file for file in files if MASK_SUFFIX.search(file.stem)]
        masks = marked or [file for file in files if file.suffix.lower() == ".png"]
        pictures = sorted(set(files) - set(masks))
        for image in _pair(_named(pictures), _named(masks), folder / name):
            images.append({**image, "name": f"{name}_{image['name']}", "class_number": number})
    return _some(images, folder), dict(enumerate(names, 1))


def _ph2(folder: Path) -> ImagesAndClasses:
    root = folder / "PH2 Dataset images" if (folder / "PH2 Dataset images").is_dir() else folder
    cases = sorted(path for path in root.glob("IMD*") if path.is_dir())
    images = [file for case in cases for file in _files_under(case / f"{case.name}_Dermoscopic_Image")]
    masks = [file for case in cases for file in _files_under(case / f"{case.name}_lesion")]
    found = _pair(_named(images), _named(masks), folder)
    return [{**image, "class_number": 1} for image in found], {1: "skin lesion"}


def _pascal(folder: Path) -> ImagesAndClasses:
    masks = image_files(_pascal_masks(folder))
    stems = {mask.stem for mask in masks}
    images = [file for file in image_files(folder / "JPEGImages") if file.stem in stems]
    return _pair(_named(images), _named(masks), folder), PASCAL_CLASSES


def _coco(folder: Path) -> ImagesAndClasses:
    images: list[Image] = []
    for part in COCO_PARTS:
        if (folder / part).is_dir():
            masks = image_files(folder / "annotations" / part)
            stems = {mask.stem for mask in masks}
            pictures = [file for file in image_files(folder / part) if file.stem in stems]
            images += _pair(_named(pictures), _named(masks), folder)
    return _some(images, folder), COCO_CLASSES


def _dataset_json(folder: Path) -> ImagesAndClasses:
    scans = load_scans(folder)
    volumes = [scan["image"] for scan in scans if Path(scan["image"]).suffix.lower() not in PICTURE_SUFFIXES]
    if volumes:
        raise ValueError(
            f"{folder / DATASET_JSON} names {len(volumes)} files that are no 2D images "
            f"({', '.join(PICTURE_SUFFIXES)}), the first is {volumes[0]}. Use the bundles for scans, or name 2D images."
        )
    names = load_class_names(folder) or {1: "foreground"}
    binary = {"class_number": next(iter(names))} if len(names) == 1 else {}
    return [{**scan, **(binary if "label" in scan else {})} for scan in scans], names


LAYOUTS: dict[str, Callable[[Path], ImagesAndClasses]] = {
    "dataset_json": _dataset_json,
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
    "dataset_json": _has(DATASET_JSON),
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


def _named(files: Iterable[Path]) -> dict[Path, str]:
    """Name files after themselves."""
    return {file: file.stem for file in files}


def _named_by_path(folder: Path) -> dict[Path, str]:
    """Name the image files of a folder, at any depth, after their paths in it."""
    files = {file: file.relative_to(folder) for file in sorted(folder.rglob("*")) if is_picture(file)}
    visible = {file: path for file, path in files.items() if not any(part.startswith(".") for part in path.parts)}
    return {file: "_".join((*path.parent.parts, path.stem)) for file, path in visible.items()}


def _some(images: list[Image], folder: Path) -> list[Image]:
    if not images:
        raise FileNotFoundError(f"{folder} holds no image ({', '.join(PICTURE_SUFFIXES)}).")
    return images


def _pair(images: Mapping[Path, str], masks: Mapping[Path, str], folder: Path) -> list[Image]:
    """Pair images with masks, both with their names.

    Raises:
        FileNotFoundError: where there is no image.
        ValueError: where a file has no partner, or several.
    """
    by_name: dict[str, list[Path]] = {}
    counts = Counter(images.values())
    for mask, name in masks.items():
        by_name.setdefault(name if name in counts else MASK_SUFFIX.sub("", name), []).append(mask)
    problems = _listed("images without a mask", counts.keys() - by_name.keys())
    problems += _listed("masks without an image", by_name.keys() - counts.keys())
    problems += _listed("images with several masks", (name for name, found in by_name.items() if len(found) > 1))
    problems += _listed("image names that occur twice", (name for name, count in counts.items() if count > 1))
    if problems:
        raise ValueError(
            f"{folder}: images and masks do not pair by name.\n" + "\n".join(problems) + "\nA mask is called after its "
            "image, with or without _segmentation, _mask or _lesion: rename them, or take out what has no partner."
        )
    found = [{"name": name, "image": str(image), "label": str(by_name[name][0])} for image, name in images.items()]
    return _some(found, folder)


def _listed(what: str, names: Iterable[str]) -> list[str]:
    found = sorted(names)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return [f"{len(found)} {what}: {', '.join(found[:SHOWN])}{more}"] if found else []
