# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from monai.config import PathLike
from monai.data import MetaTensor
from monai.data.utils import orientation_ras_lps
from monai.utils import convert_to_numpy, optional_import

from monai_fewshot.data.dicom.segment_codes import SegmentCode, segment_code
from monai_fewshot.utils import atomic_path, later_import

from .slicer_segments import check_simpleitk

__all__ = ["write_seg_nrrd"]

sitk, _ = later_import("SimpleITK")
_, has_pydicom = optional_import("pydicom")

BINARY = "Binary labelmap"
STATUS = "Segmentation.Status:inprogress"
TERMINOLOGY = "Segmentation category and type - 3D Slicer General Anatomy list"
REGIONS = "Anatomic codes - DICOM master list"
SEPARATORS = str.maketrans("^~|", "   ")


def write_seg_nrrd(
    label: MetaTensor,
    class_names: Mapping[int, str],
    path: PathLike,
    colors: Mapping[int, str],
    own_codes: Mapping[str, SegmentCode] | None = None,
    like: PathLike | None = None,
) -> Path:
    """Write a label map as a segmentation of 3D Slicer, on its own grid.

    Every class is a segment, those that are not found too, with its name, its color and, where a public code of it is
    known (:func:`monai_fewshot.data.segment_code`), what it shows in SNOMED CT. Its status is "in progress": nobody has
    looked at it.

    Based on: the file format as https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html
    describes it.

    Args:
        label: (1, H, W, D) or (H, W, D) class numbers, with a RAS affine.
        class_names: name by number.
        path: the file, ``.seg.nrrd``.
        colors: by number, as matplotlib knows them, such as ``"#ff4f64"``;
            :func:`monai_fewshot.visualize.class_colors` are those of the previews.
        own_codes: codes by name of the class that go before ours.
        like: NIfTI file of the scan. The segmentation then lies where 3D Slicer, which may go by another part of the
            header than nibabel, has the scan. Defaults to None: where the affine says.

    Returns:
        The path.

    Raises:
        OptionalImportError: without SimpleITK.
        ValueError: where a class has no name, or the file cannot be written.
    """
    check_simpleitk()
    voxels = convert_to_numpy(label)
    voxels = voxels[0] if voxels.ndim == 4 else voxels
    unnamed = sorted({int(number) for number in np.unique(voxels)} - {0} - set(class_names))
    if unnamed:
        raise ValueError(f"The label map holds {unnamed}, but names are given for {sorted(class_names)}: name these.")
    affine = None if like is None else _affine_in_slicer(like)
    image = _image(
        voxels, orientation_ras_lps(convert_to_numpy(label.affine).astype(float)) if affine is None else affine
    )
    for key, value in _fields(voxels, class_names, colors, own_codes).items():
        image.SetMetaData(key, value)
    with atomic_path(path, voxels.nbytes) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise OSError(str(error).strip().splitlines()[-1]) from error
    return Path(path)


def _image(voxels: np.ndarray, affine: np.ndarray) -> Any:
    numbers = np.ascontiguousarray(voxels.T, np.min_scalar_type(int(voxels.max(initial=0))))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(numbers, isVector=False)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def _affine_in_slicer(file: PathLike) -> np.ndarray | None:
    """LPS affine of a file as ITK reads it, on which 3D Slicer rests; None of what it does not read, such as shear."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    axes = reader.GetDimension()
    if axes < 3:
        return None
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (axes, axes))[:3, :3] * reader.GetSpacing()[:3]
    affine[:3, 3] = reader.GetOrigin()[:3]
    return affine


def _fields(
    voxels: np.ndarray,
    class_names: Mapping[int, str],
    colors: Mapping[int, str],
    own_codes: Mapping[str, SegmentCode] | None,
) -> dict[str, str]:
    fields = {
        "Segmentation_ContainedRepresentationNames": f"{BINARY}|",
        "Segmentation_MasterRepresentation": BINARY,
        "Segmentation_SourceRepresentation": BINARY,
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for index, number in enumerate(sorted(class_names)):
        segment = {
            "ID": f"Segment_{number}",
            "Name": class_names[number],
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{part:.6g}" for part in to_rgb(colors[number])),
            "ColorAutoGenerated": "0",
            "LabelValue": str(number),
            "Layer": "0",
            "Extent": _extent(voxels == number),
            "Tags": _tags(class_names[number], own_codes),
        }
        fields |= {f"Segment{index}_{key}": value for key, value in segment.items()}
    return fields


def _extent(mask: np.ndarray) -> str:
    """First and last index along each axis; 0 and -1 where there is nothing."""
    places = [np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    return " ".join(f"{place[0]} {place[-1]}" if len(place) else "0 -1" for place in places)


def _tags(name: str, own_codes: Mapping[str, SegmentCode] | None) -> str:
    code = segment_code(name, own_codes) if has_pydicom else None
    if code is None or code.is_private:
        return f"{STATUS}|"
    parts = [code.category, code.type, code.side]
    triplets = [f"{c.scheme_designator}^{c.value}^{c.meaning.translate(SEPARATORS)}" if c else "^^" for c in parts]
    return f"{STATUS}|TerminologyEntry:{'~'.join([TERMINOLOGY, *triplets, REGIONS, '^^', '^^'])}|"
