# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gzip
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy
from monai.config import PathLike
from monai.utils import ensure_tuple
from PIL import Image

from monai_fewshot.data.annotations.segmentation_reader import segmentation_names
from monai_fewshot.data.dicom.header import is_dicom
from monai_fewshot.data.files.file_damage import check_picture

from .scan_folder import Scan, load_scans

__all__ = ["pending_scans", "support_scans"]

logger = logging.getLogger(__name__)


def support_scans(
    image: PathLike | Sequence[PathLike],
    label: PathLike | Sequence[PathLike],
    series_uid: str | Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
) -> list[Scan]:
    """List annotated support scans.

    Args:
        image: one image or several, each a file or a folder with one DICOM series.
        label: their annotations, in the same order: label maps, DICOM SEG, RTSTRUCT or segmentations of 3D Slicer, each
            a file, or for DICOM a folder that holds it alone. :class:`monai_fewshot.data.LoadScand` reads them onto the
            grid of the image.
        series_uid: SeriesInstanceUID, or the name that :func:`monai_fewshot.data.load_scans` gives to the scan, of the
            DICOM series to take where a folder holds several; for several images, of all of them.
        class_names: as for :class:`monai_fewshot.data.LoadScand`, for which several annotations must else agree on the
            names of their numbers.

    Returns:
        Dictionaries with ``name``, ``image`` and ``label``.

    Raises:
        FileNotFoundError: where a file does not exist.
        ValueError: where there are not as many labels as images, a folder holds several, or the numbers of
            annotations mean different regions.
    """
    images, labels = ensure_tuple(image), ensure_tuple(label)
    if len(images) != len(labels):
        raise ValueError(
            f"{len(images)} support image(s) and {len(labels)} support label(s): give one label for each image."
        )
    scans = []
    for image_path, label_path in zip(images, labels, strict=True):
        scan = _one_scan(image_path, series_uid)
        scans.append({"name": scan["name"], "image": scan["image"], "label": _one_label(label_path)})
    if class_names is None:
        _check_region_names([scan["label"] for scan in scans])
    return scans


def pending_scans(
    scans: Sequence[Scan],
    output_dir: PathLike,
    postfix: str = "seg",
    overwrite: bool = False,
    extension: str = ".nii.gz",
) -> list[Scan]:
    """List the scans that have no mask yet, so that an interrupted run goes on where it stopped.

    A mask that cannot be read whole, as a killed run may leave one, does not count.

    Args:
        scans: all scans.
        output_dir: folder of the masks ``NAME_POSTFIX.nii.gz``, or of another extension.
        postfix: what follows the scan's name in the name of its mask.
        overwrite: whether to segment all scans anew.
        extension: of the masks' files, ``".nii.gz"`` or ``".png"``.
    """
    is_whole = is_whole_mask if extension == ".nii.gz" else is_whole_image
    pending = [
        scan for scan in scans if overwrite or not is_whole(Path(output_dir) / f"{scan['name']}_{postfix}{extension}")
    ]
    if len(pending) < len(scans):
        logger.info("%d of %d scans have a mask in %s already", len(scans) - len(pending), len(scans), output_dir)
    return pending


def _check_region_names(labels: Sequence[str]) -> None:
    names = {label: segmentation_names(label) for label in labels} if len(labels) > 1 else {}
    named = {label: regions for label, regions in names.items() if regions}
    if len({tuple(regions.items()) for regions in named.values()}) > 1:
        listed = "; ".join(f"{label}: {', '.join(regions.values())}" for label, regions in named.items())
        raise ValueError(
            f"The supports' annotations number different regions ({listed}): name those to segment, class_names, "
            'such as ["liver", "spleen"].'
        )


def _one_label(path: PathLike) -> str:
    file = Path(os.path.abspath(Path(path).expanduser()))
    if file.is_dir() and any(is_dicom(inner) for inner in file.iterdir()):
        return str(file)
    return str(file) if is_dicom(file) else _one_scan(path)["image"]


def _one_scan(path: PathLike, series_uid: str | Sequence[str] | None = None) -> Scan:
    file = Path(path).expanduser()
    scans = load_scans(path, series_uid=series_uid if file.is_dir() or is_dicom(file) else None)
    if len(scans) > 1:
        names = ", ".join(scan["name"] for scan in scans)
        raise ValueError(f"{path} holds {len(scans)} scans ({names}); as a support's image or label, name one of them.")
    return scans[0]


def is_whole_mask(path: Path) -> bool:
    """Tell whether a NIfTI file can be read to its end."""
    try:
        image = nibabel.nifti1.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))
        numpy.asanyarray(image.dataobj)
    except Exception:  # whatever damage makes nibabel raise
        return False
    return True


def is_whole_image(path: Path) -> bool:
    """Tell whether a picture can be read to its end."""
    try:
        check_picture(path)
        with Image.open(path) as image:
            image.load()
    except Exception:  # whatever damage makes a decoder raise
        return False
    return True
