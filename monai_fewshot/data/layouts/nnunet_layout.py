# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["file_ending", "names_of_labels", "nnunet_files", "nnunet_scans"]


def file_ending(content: Mapping[str, Any]) -> str:
    """Suffix of all files of an nnU-Net data set, as its ``dataset.json`` tells."""
    return str(content.get("file_ending", ".nii.gz"))


def nnunet_files(folder: Path, ending: str) -> dict[str, Path]:
    """Find the files of a folder that end in some way, by the rest of their name."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {
        path.name[: -len(ending)]: path
        for path in found
        if path.name.endswith(ending) and not path.name.startswith(".")
    }


def nnunet_scans(folder: Path, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the training scans of an nnU-Net data set of one channel.

    Args:
        folder: which has ``imagesTr`` and perhaps ``labelsTr``.
        content: of its ``dataset.json``.

    Returns:
        Dictionaries with ``name``, ``image`` and, where there is one, ``label``.

    Raises:
        ValueError: where scans have several channels, or there is no scan.
    """
    ending = file_ending(content)
    images, labels = nnunet_files(folder / "imagesTr", f"_0000{ending}"), nnunet_files(folder / "labelsTr", ending)
    if nnunet_files(folder / "imagesTr", f"_0001{ending}"):
        raise ValueError(
            f"{folder} is an nnU-Net data set whose scans have several channels, each a file: take one of them with "
            "monai-fewshot prepare nnunet --channel 0, and give the folder that it writes."
        )
    if not images:
        raise ValueError(
            f"{folder / 'imagesTr'} has no file that ends in _0000{ending}, as nnU-Net calls the images: rename them, "
            'or list the scans under "training" in dataset.json.'
        )
    return [
        {"name": name, "image": str(image)} | ({"label": str(labels[name])} if name in labels else {})
        for name, image in images.items()
    ]


def names_of_labels(labels: Any) -> dict[int, str]:
    """Read ``labels`` of a ``dataset.json``: names by number, or, as nnU-Net has them, numbers by name.

    Args:
        labels: the dictionary. Of regions, which are lists of numbers, each number is called "class 1" and so on where
            it has no name of its own.

    Returns:
        Name by number, ascending, background included where it is named.

    Raises:
        ValueError: where it is neither.

    Example:
        >>> names_of_labels({"background": 0, "tumor": [1, 2], "core": 2})
        {0: 'background', 1: 'class 1', 2: 'core'}
    """
    try:
        if all(isinstance(name, str) and not name.isdigit() for name in labels.values()):
            names = {int(number): name for number, name in labels.items()}
        else:
            regions = [int(number) for numbers in labels.values() if isinstance(numbers, list) for number in numbers]
            single = {int(number): name for name, number in labels.items() if not isinstance(number, list)}
            names = {**{number: f"class {number}" for number in regions}, **single}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{labels!r} is no dictionary of names and numbers") from error
    return {number: names[number] for number in sorted(names)}
