# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform
from monai.utils import ImageMetaKey

from monai_fewshot.data.annotations.segmentation_reader import names_regions, read_segmentation
from monai_fewshot.data.dicom.header import is_dicom
from monai_fewshot.data.dicom.series_reader import ITK_LOCK, SERIES_NAME, SeriesReader
from monai_fewshot.data.files.file_damage import check_checksums, errors_of_file
from monai_fewshot.data.files.nifti_files import is_nifti, is_packed_nifti
from monai_fewshot.data.files.volume_loader import VolumeLoader
from monai_fewshot.data.images.picture_files import load_picture, load_picture_mask
from monai_fewshot.data.layouts.scan_files import is_picture

from .label_grids import LabelGrid, onto_grid

__all__ = ["LoadScanD", "LoadScanDict", "LoadScand", "load_image", "load_label"]


class LoadScand(MapTransform):
    """Load a scan, DICOM series and annotations included; it stands where ``LoadImaged`` would.

    An image is read by ``monai.transforms.LoadImage``, NIfTI in millimeters whatever the units of its header, a DICOM
    series by :class:`SeriesReader`, a 2D picture (PNG, JPEG, BMP, TIFF) as a volume of one slice, whose mask holds
    class numbers, or 0 and 255. A label may be any such file, a DICOM SEG, an RTSTRUCT or a segmentation of 3D Slicer,
    and comes onto the grid of the image (:func:`monai_fewshot.data.read_segmentation`).

    Args:
        keys: keys of the images, each a path, or the files of one DICOM series.
        label_key: key of the label, a path. A scan without it is loaded without.
        class_names: names of the segments or regions to take from a label that names them (DICOM, 3D Slicer), numbered
            from 1 in this order. Defaults to None: all, as the file numbers them.
        allow_missing_keys: whether an absent image is passed over.

    Example:
        >>> LoadScand()({"name": "a", "image": "missing.nii"})
        Traceback (most recent call last):
        ...
        FileNotFoundError: No such file or no access: 'missing.nii'
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        label_key: str = "label",
        class_names: Sequence[str] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_key = label_key
        self.class_names = class_names
        self.load = load_volume

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """Load a scan.

        Args:
            data: the scan, with paths.

        Returns:
            The scan with ``MetaTensor`` images (C, H, W, D) and label (1, H, W, D), float32.

        Raises:
            ValueError: where a series or an annotation cannot be read as it is.
        """
        d = dict(data)
        images = list(self.key_iterator(d))
        for key in images:
            d[key] = load_image(d[key], self.load)
        if self.label_key in d:
            image = d[images[0]] if images else None
            d[self.label_key] = load_label(d[self.label_key], image, self.load, self.class_names)
        return d


def load_image(path: Any, load: Callable[[Path], MetaTensor]) -> MetaTensor:
    """Load an image, or a DICOM series, which is then called after the hash of its UID.

    Args:
        path: entry of a scan: a path, or the files of a series.
        load: which reads a file that is no DICOM.

    Returns:
        (C, H, W, D).

    Raises:
        ValueError: where it cannot be read; the text names the file or series.
    """
    if _is_dicom(path):
        volume = LoadImage(image_only=True, ensure_channel_first=True)(
            path, reader=SeriesReader(getattr(path, "frames", ()))
        )
        volume.meta[ImageMetaKey.FILENAME_OR_OBJ] = volume.meta[SERIES_NAME]
        return volume
    if is_picture(Path(path)):
        return load_picture(Path(path))
    with errors_of_file(path):
        return _read(Path(path), load)


def load_label(
    path: str,
    image: MetaTensor | None,
    load: Callable[[Path], MetaTensor],
    class_names: Sequence[str] | None = None,
) -> MetaTensor | None:
    """Load a label onto the grid of its image.

    Args:
        path: entry of a scan.
        image: (C, H, W, D); None where it is not known, then the label comes as it lies.
        load: which reads a file that names no regions.
        class_names: as for :class:`LoadScand`.

    Returns:
        (1, H, W, D); None for an annotation in DICOM or of 3D Slicer without its image.

    Raises:
        ValueError: where it cannot be read; the text names the file.
    """
    if is_picture(Path(path)):
        return load_picture_mask(Path(path), image)
    with errors_of_file(path):
        if names_regions(path):
            return None if image is None else read_segmentation(path, image, class_names)[0]
        label = _read(Path(path), load)
        return label if image is None else onto_grid(label, LabelGrid.of(image))


def _is_dicom(path: Any) -> bool:
    """Tell whether an entry of a scan is DICOM: the files of a series, a folder of such, or one file."""
    if not isinstance(path, (str, os.PathLike)):
        return True
    path = Path(path)
    return is_dicom(path) or (path.is_dir() and any(map(is_dicom, path.iterdir())))


def load_volume(path: Path) -> MetaTensor:
    """Load a file of a volume, see :class:`VolumeLoader`; threads may do so at once."""
    with nullcontext() if is_nifti(path) else ITK_LOCK:
        return VolumeLoader()(path)


def _read(path: Path, load: Callable[[Path], MetaTensor]) -> MetaTensor:
    if not is_packed_nifti(path):  # whose reader does it, as it reads the file
        check_checksums(path)
    return load(path)


LoadScanD = LoadScanDict = LoadScand
