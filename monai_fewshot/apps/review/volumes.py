# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gzip
import io
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.utils import convert_to_numpy
from PIL import Image

from monai_fewshot.data import LoadScand
from monai_fewshot.data.files.file_damage import errors_of_file

from .reviewed_scans import ReviewedScan

__all__ = ["ReviewedVolumes"]

NIFTI_SUFFIXES = (".nii", ".nii.gz")
KEPT_SCANS = 3


class ReviewedVolumes:
    """Gives images and masks as uncompressed NIfTI files, whatever they lie in, and keeps those of a few scans.

    Args:
        kept_scans: how many scans are kept in memory.
    """

    def __init__(self, kept_scans: int = KEPT_SCANS) -> None:
        self.kept_files = 2 * kept_scans
        self.cache: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self.lock = threading.Lock()

    def image(self, scan: ReviewedScan) -> bytes:
        """Read the image of a scan.

        Args:
            scan: the scan.

        Returns:
            A NIfTI file; a PNG file of a 2D picture.

        Raises:
            OSError: where it is not there.
            ValueError: where it cannot be read.
        """
        return self._kept(scan, "image")

    def mask(self, scan: ReviewedScan) -> bytes:
        """Read the mask of a scan, as :meth:`image` does."""
        return self._kept(scan, "mask")

    def _kept(self, scan: ReviewedScan, part: str) -> bytes:
        key = scan.name, part
        with self.lock:
            if key not in self.cache:
                self.cache[key] = _read_mask(scan) if part == "mask" else _read_image(scan)
            self.cache.move_to_end(key)
            while len(self.cache) > self.kept_files:
                self.cache.popitem(last=False)
            return self.cache[key]


def _read_image(scan: ReviewedScan) -> bytes:
    if scan.source is None:
        raise FileNotFoundError(
            f"Nothing tells where the scan {scan.name} lies: give the folder of the scans as --scans."
        )
    image = scan.source["image"]
    if absent := [file for file in ([image] if isinstance(image, str) else image) if not Path(file).exists()]:
        raise FileNotFoundError(
            f"{absent[0]}, of the scan {scan.name}, is not there: put it back, or give the folder of the scans "
            "as --scans."
        )
    if isinstance(image, str) and _is_nifti_volume(Path(image)):
        return _uncompressed(Path(image))
    volume = LoadScand()({"name": scan.name, "image": image})["image"]
    return _as_png(volume) if scan.is_picture else _as_nifti(volume)


def _read_mask(scan: ReviewedScan) -> bytes:
    for file in scan.masks:
        if _is_nifti_volume(file):
            return _uncompressed(file)
    if scan.source is None:
        raise FileNotFoundError(
            f"{scan.masks[0]} is read on the grid of its scan: give the folder of scans as --scans."
        )
    loaded = LoadScand()({"name": scan.name, "image": scan.source["image"], "label": str(scan.masks[0])})
    return _as_nifti(loaded["label"])


def _is_nifti_volume(path: Path) -> bool:
    """Whether a file can be given to the viewer as it is: NIfTI in one file, of one volume."""
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        return False
    with errors_of_file(path):
        return len(nib.Nifti1Image.from_filename(path).shape) == 3


def _uncompressed(path: Path) -> bytes:
    with errors_of_file(path):
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def _as_nifti(volume: Any) -> bytes:
    """The first channel of a volume (C, H, W, D), in the smallest type that holds it."""
    voxels = convert_to_numpy(volume)[0]
    lower, upper = float(voxels.min(initial=0)), float(voxels.max(initial=0))
    kind: type = np.float32
    if np.array_equal(voxels, np.rint(voxels)):
        fitting = (np.uint8, np.int16, np.int32)
        kind = next((k for k in fitting if np.iinfo(k).min <= lower and upper <= np.iinfo(k).max), np.float32)
    affine = np.asarray(convert_to_numpy(volume.affine), dtype=float)
    return nib.Nifti1Image(voxels.astype(kind), affine).to_bytes()


def _as_png(picture: Any) -> bytes:
    """A picture (C, H, W, 1)."""
    pixels = np.moveaxis(convert_to_numpy(picture)[..., 0], 0, -1).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()
