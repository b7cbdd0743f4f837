# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from monai.config import PathLike
from monai.data import MetaTensor
from monai.utils import ImageMetaKey

from monai_fewshot.data.dicom.header import is_dicom
from monai_fewshot.data.dicom.regions import dicom_region_names, dicom_regions
from monai_fewshot.data.dicom.series import DicomSeries, find_series
from monai_fewshot.data.files.file_damage import errors_of_file
from monai_fewshot.data.files.volume_loader import VolumeLoader
from monai_fewshot.data.scans.class_numbers import numbers_called
from monai_fewshot.data.scans.label_grids import LabelGrid, Region, label_map, onto_grid

from .slicer_segments import is_slicer_segmentation, slicer_segment_names, slicer_segments

__all__ = ["names_regions", "read_segmentation", "region_numbers", "segmentation_names"]

logger = logging.getLogger(__name__)


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
        class_names: names of the segments or regions to take from a file that has names, numbered from 1 in this order.
            Upper or lower case matters only where a region is called just so. Defaults to None: all, segments by their
            own numbers, regions from 1 in the order of theirs. Regions that share a name are one class, with the number
            of the first.

    Returns:
        Label (1, H, W, D), and names by number; none for a file that has no names. Files of images are flipped and
        their axes permuted where that brings them onto the grid, and left as they are where it does not.

    Raises:
        ValueError: where the annotation belongs to another frame of reference, overlaps the image nowhere, is not on
            its grid or has no region of a wanted name; the text does not name the file.
    """
    grid, file = LabelGrid.of(reference), _one_file(path)
    if not names_regions(file):
        return onto_grid(VolumeLoader()(file), grid), {}
    drawn = slicer_segments(file, grid) if is_slicer_segmentation(file) else dicom_regions(file, grid)
    drawn = _united(drawn)
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
        names = slicer_segment_names(file) if is_slicer_segmentation(file) else dicom_region_names(file)
    firsts = {name: number for number, name in reversed(names.items())}
    return {number: name for number, name in names.items() if firsts[name] == number}


def region_numbers(regions: Mapping[int, str], wanted: Sequence[str]) -> list[int]:
    """Find the regions of some names.

    Args:
        regions: names by number, as :func:`segmentation_names` returns them.
        wanted: names, see :func:`read_segmentation`.

    Returns:
        Numbers in the order of ``wanted``.

    Raises:
        ValueError: where there is no region of a name, or several whose names differ in upper and lower case alone; the
            text does not name the file.
    """
    found = {name: numbers_called(name, regions) for name in wanted}
    unknown = [name for name in wanted if not found[name]]
    if unknown:
        raise ValueError(f"has no region called {', '.join(unknown)}; it has {', '.join(regions.values())}.")
    for name in wanted:
        if len(found[name]) > 1:
            alike = ", ".join(regions[number] for number in found[name])
            raise ValueError(f"has several regions called {name} ({alike}): write the name as the file has it.")
    return [found[name][0] for name in wanted]


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
    regions = {region.number: region for region in drawn}
    numbers = region_numbers({region.number: region.name for region in drawn}, names)
    return [regions[own]._replace(number=number) for number, own in enumerate(numbers, start=1)]


def _united(drawn: Sequence[Region]) -> list[Region]:
    """Make one region of those that share a name, as of several lesions, with the number of the first."""
    groups: dict[str, list[Region]] = defaultdict(list)
    for region in drawn:
        groups[region.name].append(region)
    for name, parts in groups.items():
        if len(parts) > 1:
            logger.info("%d regions are called %s, and are taken as one class", len(parts), name)
    return [Region(parts[0].number, name, _all_voxels(parts)) for name, parts in groups.items()]


def _all_voxels(parts: Sequence[Region]) -> np.ndarray:
    return parts[0].voxels if len(parts) == 1 else np.unique(np.concatenate([part.voxels for part in parts]))
