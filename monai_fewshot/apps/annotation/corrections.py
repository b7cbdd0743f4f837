# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.config import PathLike
from monai.data import MetaTensor
from monai.transforms import Compose
from monai.utils import convert_to_numpy

from monai_fewshot.data import CheckScand, LoadScand, Scan, VolumePreparation, segmentation_names
from monai_fewshot.data.layouts.scan_files import SEGMENTATION_SUFFIXES, is_image, is_picture, scan_name
from monai_fewshot.data.scans.check_scans import ScanReader, read_and_check

__all__ = ["add_file_classes", "check_scan_of", "find_corrections", "read_correction", "touched_slices"]

HIGHEST_CLASS = 254
OTHER, OWN = 0.8, 0.5
"""Dice of a corrected mask with the mask of another scan, and with that of its own, from which on it is mistaken."""


def find_corrections(paths: Sequence[PathLike], names: Collection[str]) -> dict[str, Path]:
    """Find out of which scans corrected masks are, by their names.

    Args:
        paths: files ``NAME_seg`` or ``NAME`` after their scans, with any suffix of a mask, or folders of them.
        names: of the scans.

    Returns:
        File by name of the scan.

    Raises:
        FileNotFoundError: where a file or folder is not there, or a folder holds no mask.
        ValueError: where a file is called after no scan, or two are of one.
    """
    found: dict[str, Path] = {}
    for file in [file for path in paths for file in _files(Path(path).expanduser().absolute())]:
        stem = scan_name(file).removesuffix(".seg")
        name = next((name for name in (stem, stem.removesuffix("_seg")) if name in names), None)
        if name is None:
            near = difflib.get_close_matches(stem.removesuffix("_seg"), names, 1) or sorted(names)[:1]
            raise ValueError(
                f"{file} is called after none of the {len(names)} scans that have a mask. Call it as the mask of its "
                f"scan, such as {near[0]}_seg.nii.gz."
            )
        if name in found and found[name] != file:
            raise ValueError(f"{found[name]} and {file} are both of {name}: keep one of them.")
        found[name] = file
    return found


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"The corrected mask {path} does not exist: correct its path.")
    if path.is_file():
        return [path]
    files = [file for file in sorted(path.iterdir()) if file.is_file() and _is_mask(file)]
    if not files:
        raise FileNotFoundError(f"{path} holds no mask: give files such as NAME_seg.nii.gz, or a folder of them.")
    return files


def _is_mask(file: Path) -> bool:
    is_known = is_image(file) or is_picture(file) or file.name.lower().endswith((*SEGMENTATION_SUFFIXES, ".dcm"))
    return is_known and not file.name.startswith(".")


def read_correction(file: Path, scan: Scan, channels: int = 1) -> MetaTensor:
    """Read a corrected mask onto the grid of its scan, with the numbers of the file.

    Args:
        file: of any format that a label may have, see :class:`monai_fewshot.data.LoadScand`.
        scan: with ``image``.
        channels: that the scan has.

    Returns:
        (1, H, W, D).

    Raises:
        ValueError: where it cannot be read, or is no label on the grid of its scan.
    """
    check = CheckScand("image", "label", num_channels=channels)
    pair = {"name": scan["name"], "image": scan["image"], "label": str(file)}
    loaded, problems = read_and_check(pair, ScanReader(), check)
    if not problems and int(loaded["label"].max()) > HIGHEST_CLASS:
        problems = [f"{file}: holds the class number {int(loaded['label'].max())}; give numbers up to {HIGHEST_CLASS}."]
    if problems:
        lines = "\n".join(f"  {line}" for line in problems)
        raise ValueError(f"{file} cannot be used as the corrected mask of the scan {scan['name']}:\n{lines}")
    return loaded["label"]


def add_file_classes(file: Path, label: MetaTensor, classes: Mapping[int, str]) -> tuple[MetaTensor, dict[int, str]]:
    """Give the classes of a corrected mask the numbers of the model, and new ones new numbers.

    Classes of a file that names them (3D Slicer, DICOM) are known by name, upper or lower case, those of others by
    number.

    Args:
        file: the mask.
        label: (1, H, W, D), as :func:`read_correction` returns it.
        classes: known names by number.

    Returns:
        The label with numbers of the classes returned, which are the known and the new ones.
    """
    own = segmentation_names(file) if not is_picture(file) else {}
    shown = [int(value) for value in torch.unique(label.as_tensor()).tolist() if value > 0]
    together = dict(classes)
    numbers = np.zeros(max(shown, default=0) + 1, np.int64)
    by_name = {name.casefold(): number for number, name in classes.items()}
    for value in shown:
        name = own.get(value)
        if name is None:
            number, name = value, f"class {value}"
        else:
            number = by_name.get(name.casefold(), value if value not in together else max(together) + 1)
        numbers[value] = number
        together.setdefault(number, name)
        by_name.setdefault(together[number].casefold(), number)
    mapped = numbers[convert_to_numpy(label).astype(np.int64)].astype(np.float32)
    return MetaTensor(torch.from_numpy(mapped), affine=label.affine), dict(sorted(together.items()))


def check_scan_of(file: Path, label: MetaTensor, name: str, masks: Mapping[str, Path]) -> None:
    """Check that a corrected mask is not that of another scan under a wrong name.

    Args:
        file: of the mask.
        label: (1, H, W, D), its content.
        name: of the scan after which it is called.
        masks: masks that were predicted, NIfTI files by name of the scan.

    Raises:
        ValueError: where it is like the mask of another scan, and not like that of its own.
    """
    drawn = convert_to_numpy(label)[0].astype(np.int64)
    if name not in masks or _agreement(drawn, masks[name]) >= OWN:
        return
    for other, mask in masks.items():
        if other != name and _agreement(drawn, mask) >= OTHER:
            raise ValueError(
                f"{file} is called after the scan {name}, but is like the mask of {other} and unlike that of {name}: "
                f"call it {other}_seg.nii.gz if it is of that scan."
            )


def _agreement(drawn: np.ndarray, mask: Path) -> float:
    """Share of the foreground voxels of two masks that have the same class, as Dice counts it."""
    made = np.asarray(nibabel.nifti1.load(mask).dataobj)
    if made.shape != drawn.shape:
        return 0.0
    return 2 * int(((made == drawn) & (drawn > 0)).sum()) / max(1, int((made > 0).sum() + (drawn > 0).sum()))


def touched_slices(
    corrected: PathLike, predicted: PathLike, scan: Scan, preparation: VolumePreparation
) -> tuple[int, ...]:
    """Tell in which slices a corrected mask differs from the predicted one.

    Args:
        corrected: its file, on the grid of the scan.
        predicted: likewise.
        scan: with ``image``.
        preparation: of the network, which tells the axis that scans are cut along.

    Returns:
        Numbers of slices along that axis, ascending, from 0.
    """
    load, align = LoadScand(), preparation.grid or Compose([])
    pairs = ({"image": scan["image"], "label": str(path)} for path in (predicted, corrected))
    before, after = (align(load(pair))["label"] for pair in pairs)
    differ = (before.as_tensor() != after.as_tensor()).flatten(0, 2).any(0)
    return tuple(int(number) for number in differ.nonzero().flatten())
