# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import PathLike
from monai.utils import ensure_tuple

from monai_fewshot.data.annotations.segmentation_reader import segmentation_names
from monai_fewshot.data.layouts.scan_files import SEGMENTATION_SUFFIXES, is_image, is_picture, scan_name
from monai_fewshot.utils import process_rank

from .class_numbers import class_numbers
from .inference_scans import support_scans
from .load_scan import LoadScand
from .scan_folder import Scan, load_class_names, load_scans
from .splits import one_fold, training_scans

__all__ = ["add_seed_labels", "annotated_classes", "annotated_scans", "shown_classes", "unlabeled_scans"]

logger = logging.getLogger(__name__)


def annotated_scans(
    dataset_dir: PathLike,
    fold: int | None = None,
    num_folds: int = 5,
    image: PathLike | Sequence[PathLike] | None = None,
    label: PathLike | Sequence[PathLike] | None = None,
) -> list[Scan]:
    """List the scans whose annotations a network is trained from.

    Args:
        dataset_dir: folder as for :func:`monai_fewshot.data.load_scans`.
        fold: number of a fold, whose support is the annotated scan.
        num_folds: number of folds where the data set names none.
        image: the annotated scan, or several, in place of a fold's support.
        label: their label maps.

    Returns:
        Dictionaries with ``name``, ``image`` and ``label``.

    Raises:
        ValueError: where neither image and label nor a fold say which scan is annotated, or the support has no label.

    Example:
        >>> annotated_scans("data")
        Traceback (most recent call last):
        ...
        ValueError: No scan is said to be annotated: give support_image and support_label, or a fold.
    """
    if (image is None) != (label is None):
        raise ValueError("support_image and support_label belong together: give both, or neither and a fold.")
    if image is not None and label is not None:
        return support_scans(image, label)
    if fold is None:
        raise ValueError("No scan is said to be annotated: give support_image and support_label, or a fold.")
    support = one_fold(dataset_dir, fold, num_folds).support
    return load_scans(dataset_dir, names=support, require_labels=True)


def unlabeled_scans(
    dataset_dir: PathLike,
    annotated: Sequence[Scan],
    fold: int | None = None,
    num_folds: int = 5,
    with_labels: bool = False,
    required: bool = True,
) -> list[Scan]:
    """List the scans that a network labels itself, and then learns from.

    Args:
        dataset_dir: folder as for :func:`monai_fewshot.data.load_scans`.
        annotated: the annotated scans, which are left out.
        fold: number of the fold whose queries and support are left out too; None for no fold.
        num_folds: number of folds where the data set names none.
        with_labels: whether every scan must have a label, which is then listed, to measure pseudo-labels by.
        required: whether there must be one.

    Raises:
        ValueError: where no scan is left.
    """
    taken = {_image_files({"image": scan[key]}) for scan in annotated for key in ("image", "label")}
    scans = training_scans(dataset_dir, fold, num_folds, with_labels)
    left = [scan for scan in scans if _image_files(scan) not in taken]
    if required and not left:
        raise ValueError(f"{dataset_dir} has no scan beside the annotated one: add scans, without labels.")
    return left


def add_seed_labels(scans: Sequence[Scan], folder: PathLike | None) -> list[Scan]:
    """Give scans first labels where a folder holds some, such as the masks of another method.

    Args:
        scans: the scans.
        folder: of label maps called ``NAME_seg`` or ``NAME`` after their scans, with any suffix; None for none.

    Returns:
        The scans, with ``label`` where there is one.

    Raises:
        FileNotFoundError: where there is no such folder.
        ValueError: where no file fits a scan, or two fit one.
    """
    if folder is None:
        return list(scans)
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise FileNotFoundError(f"seed_labels: {root} is no folder. Name a folder of masks, one a scan.")
    found: dict[str, list[str]] = {}
    for file in sorted(root.iterdir()):
        if is_image(file) or is_picture(file) or file.name.lower().endswith(SEGMENTATION_SUFFIXES):
            found.setdefault(scan_name(file).removesuffix(".seg").removesuffix("_seg"), []).append(str(file))
    seeded = [scan | {"label": found[scan["name"]][0]} if scan["name"] in found else scan for scan in scans]
    doubled = [", ".join(found[scan["name"]]) for scan in scans if len(found.get(scan["name"], [])) > 1]
    if doubled:
        raise ValueError(f"seed_labels: several masks fit one scan: {doubled[0]}. Keep one of them in {root}.")
    number = sum("label" in scan for scan in seeded)
    if not number:
        example = f"{scans[0]['name']}_seg.nii.gz" if scans else "NAME_seg.nii.gz"
        raise ValueError(f"seed_labels: no file in {root} is called after one of the scans, such as {example}.")
    if process_rank() == 0:
        logger.info("%d of %d scans have seed labels.", number, len(scans))
    return seeded


def annotated_classes(
    scans: Sequence[Scan], dataset_dir: PathLike, classes: str | int | Sequence[str | int] | None = None
) -> dict[int, str]:
    """Tell which classes of annotated scans are learned.

    Args:
        scans: the annotated scans.
        dataset_dir: where ``dataset.json`` may name classes; else the label of the first scan may (DICOM, 3D Slicer).
        classes: names or numbers; None for all that are named, or, where none are, all that the labels show.

    Returns:
        Name by number as in the label maps, in the order of ``classes``; classes without a name are "class 3".

    Raises:
        ValueError: where a class is unknown, or the labels show none.
    """
    names = load_class_names(dataset_dir) or (segmentation_names(scans[0]["label"]) if scans else {})
    numbers = names and class_numbers(names, classes or list(names))
    if not names:
        numbers = class_numbers({}, classes) if classes else shown_classes(scans)
    return {number: names.get(number, f"class {number}") for number in numbers}


def shown_classes(scans: Sequence[Scan], class_names: Sequence[str] | None = None) -> tuple[int, ...]:
    """Numbers of the classes that the labels of annotated scans show, ascending.

    Args:
        scans: the annotated scans.
        class_names: as for :class:`monai_fewshot.data.LoadScand`.

    Raises:
        ValueError: where there are none.
    """
    load = LoadScand(class_names=class_names)
    shown = sorted({int(value) for scan in scans for value in torch.unique(load(scan)["label"]).tolist()} - {0})
    if not shown:
        raise ValueError(f"{scans[0]['label']} is empty, no voxel is above 0: annotate at least one class.")
    return tuple(shown)


def _image_files(scan: Scan) -> tuple[Any, ...]:
    return tuple(Path(file).resolve() for file in ensure_tuple(scan["image"])), getattr(scan["image"], "frames", ())
