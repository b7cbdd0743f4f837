# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai.config import PathLike
from monai.data import MetaTensor
from monai.transforms import LoadImage
from monai.utils import ImageMetaKey

from monai_fewshot.data.dicom.header import is_dicom
from monai_fewshot.data.dicom.regions import dicom_region_names, dicom_regions
from monai_fewshot.data.dicom.series import DicomSeries, find_series
from monai_fewshot.data.files.file_damage import errors_of_file
from monai_fewshot.data.scans.label_grids import LabelGrid, Region, label_map, onto_grid

from .slicer_segments import is_slicer_segmentation, slicer_segment_names, slicer_segments

__all__ = ["names_regions", "read_segmentation", "segmentation_names"]


def read_segmentation(
    path: PathLike,
    reference: MetaTensor | DicomSeries,
    class_names: Sequence[str] | None = None,
) -> tuple[MetaTensor, dict[int, str]]:
    """Read an annotation onto the grid of its image.

    Args:
        path: a DICOM SEG (binary, fractional or label map), an RTSTRUCT, a folder that holds one of them, a
            segmentation of 3D Slicer (``.seg.nrrd``), or a file that ``monai.transforms.LoadImage`` reads, such as
            NIfTI and NRRD.
        reference: the image (C, H, W, D), or its series.
        class_names: names of the segments or regions to take from a file that has names, in upper or lower case,
            numbered from 1 in this order. Defaults to None: all, segments by their own numbers, regions from 1 in the
            order of theirs.

    Returns:
        Label (1, H, W, D), and names by number; none for a file that has no names. Files of images are flipped and
        their axes permuted where that brings them onto the grid, and left as they are where it does not.

    Raises:
        ValueError: where the annotation belongs to another frame of reference, overlaps the image nowhere, is not on
            its grid or has no region of a wanted name; the text does not name the file.
    """
    grid, file = LabelGrid.of(reference), _one_file(path)
    if not names_regions(file):
        label = LoadImage(image_only=True, ensure_channel_first=True)(file)
        return onto_grid(label, grid), {}
    drawn = slicer_segments(file, grid) if is_slicer_segmentation(file) else dicom_regions(file, grid)
    drawn = drawn if class_names is None else _chosen(drawn, class_names)
    if not any(len(region.voxels) for region in drawn):
        raise ValueError(
            f"marks no voxel of its image: {', '.join(region.name for region in drawn) or 'its regions'} and the "
            "image overlap nowhere, or nothing is drawn. Give the annotation of this image."
        )
    label = label_map(drawn, grid)
    label.meta[ImageMetaKey.FILENAME_OR_OBJ] = str(path)
    return label, {region.number: region.name for region in drawn}


def segmentation_names(path: PathLike) -> dict[int, str]:
    """Read the names of an annotation's classes by number, as :func:`read_segmentation` numbers all of them.

    Args:
        path: as there.

    Returns:
        Names by number; none for a file that has no names, such as NIfTI.

    Raises:
        ValueError: where a DICOM file is no annotation, or it or a segmentation of 3D Slicer cannot be read; the text
            names the file.
    """
    file = _one_file(path)
    if not names_regions(file):
        return {}
    with errors_of_file(path):
        return slicer_segment_names(file) if is_slicer_segmentation(file) else dicom_region_names(file)


def names_regions(path: PathLike) -> bool:
    """Tell whether an annotation carries the names of its regions: DICOM, a folder of it, or one of 3D Slicer."""
    path = Path(path)
    if path.is_dir():
        return any(map(is_dicom, path.iterdir()))
    return is_dicom(path) or is_slicer_segmentation(path)


def _one_file(path: PathLike) -> Path:
    if not Path(path).is_dir():
        return Path(path)
    files = [file for series in find_series(path).series for file in series.files]
    if len(files) != 1:
        raise ValueError(f"is a folder of {len(files)} DICOM files; name the one file that holds the annotation.")
    return Path(files[0])


def _chosen(drawn: Sequence[Region], names: Sequence[str]) -> list[Region]:
    by_name = {region.name.lower(): region for region in drawn}
    unknown = [name for name in names if name.lower() not in by_name]
    if unknown:
        raise ValueError(
            f"has no region called {', '.join(unknown)}; it has {', '.join(region.name for region in drawn)}."
        )
    return [by_name[name.lower()]._replace(number=number) for number, name in enumerate(names, start=1)]
