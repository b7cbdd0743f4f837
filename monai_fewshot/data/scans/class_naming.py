# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_fewshot.data.annotations.segmentation_reader import segmentation_names

from .scan_folder import Scan, load_class_names

__all__ = ["name_classes"]


def name_classes(
    classes: Sequence[int] | Mapping[int, str],
    class_names: Sequence[str] | None = None,
    supports: Sequence[Scan] = (),
) -> dict[int, str]:
    """Name the classes of masks.

    Args:
        classes: the class numbers, or names by number that are known already, as
            :class:`monai_fewshot.workflows.TrainedModel` reads them.
        class_names: names of the classes, in ascending order of their numbers, or of all numbers from 1. Defaults to
            None: the known names, those that the first support's label has in it (DICOM, 3D Slicer), or those that the
            ``dataset.json`` of its data set tells, one or two folders above it.
        supports: annotated scans.

    Returns:
        Name by number; ``"class 3"`` where a class has none.

    Raises:
        ValueError: where names are given, but not for all classes.

    Example:
        >>> name_classes([205, 420], ["liver", "spleen"])
        {205: 'liver', 420: 'spleen'}
        >>> name_classes([1, 4])
        {1: 'class 1', 4: 'class 4'}
    """
    numbers = sorted(classes)
    if class_names is None:
        known = dict(classes) if isinstance(classes, Mapping) else {}
        names = known or (_names_of_label(supports[0]["label"]) if supports else {})
        return {number: names.get(number, f"class {number}") for number in numbers}
    if not isinstance(class_names, str) and len(class_names) == len(numbers):
        return dict(zip(numbers, map(str, class_names), strict=True))
    if isinstance(class_names, str) or max(numbers) > len(class_names):
        raise ValueError(
            f"class_names are {class_names!r}, but the masks hold the classes {numbers}: give {len(numbers)} "
            'name(s) in the order of these numbers, such as ["liver", "spleen"].'
        )
    return {number: str(class_names[number - 1]) for number in numbers}


def _names_of_label(label: str) -> dict[int, str]:
    names = segmentation_names(label)
    folders = Path(label).absolute().parents[:2]
    return names or next((found for folder in folders if (found := load_class_names(folder))), {})
