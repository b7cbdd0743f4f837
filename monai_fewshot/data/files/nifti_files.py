# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
from monai.config import PathLike
from monai.data import NibabelReader
from monai.utils import ensure_tuple
from nibabel.openers import ImageOpener

from .file_damage import read_gzip

__all__ = [
    "NiftiHeaderError",
    "ScanNiftiReader",
    "check_spacing",
    "is_nifti",
    "is_packed_nifti",
    "nifti_mask",
    "place_nifti",
]

NIFTI2_HEADER = (540).to_bytes(4, "little")
"""How a file of version 2 begins, the size of its header, in either order of bytes."""
MM_PER_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}
SPACING_TOLERANCE = 0.01
PLACE = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)
"""Fields of a header that say where voxels lie, beside ``pixdim``; no others go from a scan into its mask."""


class NiftiHeaderError(ValueError):
    """A NIfTI header that does not tell where voxels lie, or tells it in two ways."""


class ScanNiftiReader(NibabelReader):
    """Reads NIfTI scans in millimeters for ``monai.transforms.LoadImage``.

    Give it when loading, not when making ``LoadImage``, which would try its other readers on a file that is refused.

    Lengths in meters or microns, by the header's units, become millimeters; units that are not said are millimeters.
    As nibabel has it, the sform goes before the qform. A compressed file is read to its end, once, and compared with
    its checksum.

    Deviation: MONAI's ``NibabelReader`` leaves lengths in their units; where the sform contradicts ``pixdim``, it takes
    the qform in place of the sform, even if the header does not use it. Here the sform counts, and a file whose
    distances contradict it is refused; of a sheared grid, a tilted gantry's, ``pixdim`` may be those between planes.
    """

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> nibabel.Nifti1Image:
        """Read the header, and of a compressed file all.

        Args:
            data: the file, one.
            kwargs: of ``nibabel.load``; of no effect on a compressed file.

        Raises:
            NiftiHeaderError: where it does not tell the distance of voxels; the text does not name the file.
            ValueError: where a compressed file is damaged or truncated; likewise.
        """
        self.filenames = ensure_tuple(data)
        (path,) = self.filenames
        image = _unpacked(path) if is_packed_nifti(path) else cast(nibabel.Nifti1Image, nibabel.load(path, **kwargs))
        check_spacing(image, path)
        scale = MM_PER_UNIT.get(_unit(image.header), 1.0)
        if scale != 1:
            image = type(image)(image.dataobj, np.diag([scale, scale, scale, 1]) @ image.affine, image.header)
            image.header.set_xyzt_units("mm")
        number = min(len(image.shape), 3)
        image.header["pixdim"][1 : 1 + number] = np.linalg.norm(image.affine[:3, :number], axis=0)
        return image


def check_spacing(image: nibabel.Nifti1Image, path: PathLike) -> None:
    """Check that a header tells where voxels lie.

    Args:
        image: whose voxels are not read.
        path: of its file.

    Raises:
        NiftiHeaderError: where it does not, or contradicts itself; the text does not name the file.
    """
    number = min(len(image.shape), 3)
    by_affine = np.linalg.norm(image.affine[:3, :number], axis=0)
    if not np.isfinite(image.affine).all() or not np.linalg.det(image.affine):
        raise NiftiHeaderError(
            "does not tell where its voxels lie: its affine (sform or qform) is not finite, or a distance of voxels is "
            "0. Convert the scan from its source again."
        )
    sform_used = int(image.header["sform_code"]) > 0
    pixdim = _pixdim(path, image.header)[:number]
    known = (np.isfinite(pixdim) & (pixdim > 0)).all()
    if not (known or sform_used):
        raise NiftiHeaderError(
            f"does not tell the distance of its voxels: its pixdim is {_listed(pixdim)}. Convert the scan from its "
            "source again, or write the distances into its header (nibabel: header.set_zooms)."
        )
    planes = 1 / np.linalg.norm(np.linalg.inv(image.affine[:3, :3]), axis=1)[:number]
    nearer = np.minimum(np.abs(by_affine / pixdim - 1), np.abs(planes / pixdim - 1)) if known else np.zeros(1)
    if nearer.max() > SPACING_TOLERANCE:
        raise NiftiHeaderError(
            f"contradicts itself: the distance of its voxels is {_listed(by_affine)} by its sform and "
            f"{_listed(pixdim)} by its pixdim. Convert the scan from its source again, or correct its header."
        )


def is_nifti(path: Any) -> bool:
    """Tell whether an entry of a scan is a NIfTI file, by its suffix."""
    return isinstance(path, (str, Path)) and str(path).lower().endswith((".nii", ".nii.gz"))


def is_packed_nifti(path: Any) -> bool:
    """Tell whether an entry of a scan is a compressed NIfTI file, by its suffix."""
    return is_nifti(path) and str(path).lower().endswith(".gz")


def nifti_mask(voxels: np.ndarray, affine: np.ndarray, like: PathLike | None = None) -> nibabel.Nifti1Image:
    """Make the NIfTI file of a mask.

    Programs differ in whether they go by qform or sform. So a mask of a NIfTI scan has both as the scan has them, with
    their codes, ``pixdim`` and the units; of the rest of the scan's header, which may tell of the patient, nothing.

    Args:
        voxels: (H, W, D), integers.
        affine: (4, 4) from voxels to RAS millimeters; of no effect where ``like`` is NIfTI.
        like: the scan's file, if it has one.
    """
    if like is None or not is_nifti(like):
        return place_nifti(nibabel.Nifti1Image(voxels, affine), affine)
    scan = cast(nibabel.Nifti1Image, nibabel.load(like)).header
    header = nibabel.Nifti1Header()
    header.set_data_dtype(voxels.dtype)
    header["pixdim"][:4] = scan["pixdim"][:4]
    for field in PLACE:
        header[field] = scan[field]
    if _pixdim_is_unknown(like, scan):
        header["pixdim"][1:4] = np.linalg.norm(scan.get_best_affine()[:3, :3], axis=0)
    return nibabel.Nifti1Image(voxels.reshape(scan.get_data_shape()[:3]), None, header)


def place_nifti(image: nibabel.Nifti1Image, affine: np.ndarray) -> nibabel.Nifti1Image:
    """Write an affine in millimeters into the header of an image, as sform and, where it can hold it, as qform.

    A qform has no shear, which a tilted gantry makes; it is left out then, so that no program takes it.

    Args:
        image: whose header is changed.
        affine: (4, 4).

    Returns:
        The image.
    """
    image.set_sform(affine, "scanner")
    image.set_qform(affine, "scanner")
    size = np.abs(affine[:3, :3]).max()
    if np.abs(image.get_qform() - affine)[:3, :3].max() > 1e-4 * size:
        image.set_qform(None)
        image.header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    image.header.set_xyzt_units("mm")
    return image


def _unpacked(path: PathLike) -> nibabel.Nifti1Image:
    """Read a compressed file into memory."""
    content = read_gzip(Path(path))
    of_version_2 = NIFTI2_HEADER in (content[:4], content[3::-1])
    return (nibabel.Nifti2Image if of_version_2 else nibabel.Nifti1Image).from_bytes(content)


def _unit(header: nibabel.Nifti1Header) -> str:
    try:
        return header.get_xyzt_units()[0]
    except KeyError:
        return "unknown"


def _pixdim_is_unknown(path: PathLike, header: nibabel.Nifti1Header) -> bool:
    pixdim = _pixdim(path, header)
    return not (np.isfinite(pixdim) & (pixdim > 0)).all()


def _pixdim(path: PathLike, header: nibabel.Nifti1Header) -> np.ndarray:
    """Distances of voxels as they stand in the file; what nibabel reads has 1 in the place of 0."""
    with ImageOpener(str(path)) as stream:
        return np.abs(type(header).from_fileobj(stream, check=False)["pixdim"][1:4].astype(float))


def _listed(lengths: np.ndarray) -> str:
    return " x ".join(f"{length:.4g}" for length in lengths)
