# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.utils import OptionalImportError

from monai_fewshot.data.files.file_damage import check_checksums
from monai_fewshot.data.scans.label_grids import LabelGrid, Region
from monai_fewshot.utils import later_import

__all__ = [
    "check_simpleitk",
    "is_slicer_segmentation",
    "is_whole_seg_nrrd",
    "slicer_segment_names",
    "slicer_segments",
]

sitk, has_sitk = later_import("SimpleITK")

HINT = (
    "A segmentation of 3D Slicer (.seg.nrrd) needs SimpleITK: pip install monai_fewshot[slicer], or use another format."
)
SUFFIXES = (".nrrd", ".nhdr")
FIELD = re.compile(r"Segment(\d+)_\w+")
REPRESENTATIONS = ("Segmentation_SourceRepresentation", "Segmentation_MasterRepresentation")
BINARY = "Binary labelmap"


class _Segment(NamedTuple):
    """A segment: its class number and name, the layer of the file that holds it, and its value there."""

    number: int
    name: str
    layer: int
    value: int


def slicer_segments(file: Path, grid: LabelGrid) -> list[Region]:
    """Read the segments of a segmentation of 3D Slicer onto the grid of an image.

    3D Slicer crops a segmentation to its segments, or saves it on the extent of another image, and puts segments that
    overlap into layers of their own. Voxels lie where the header says; axes may be flipped or permuted.

    Based on: the file format as https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html
    describes it.

    Args:
        file: ``.seg.nrrd``, 3D, or 4D with an axis of layers.
        grid: of the image.

    Returns:
        One region a segment, in the order of the file, numbered by label value; from 1 in the order of the file where
        segments of different layers have the same value. Voxels outside of the grid are left out.

    Raises:
        OptionalImportError: without SimpleITK.
        ValueError: where the file cannot be read, or its voxels are not those of the grid.
    """
    reader = _header(file)
    segments = _segments(reader)
    image = _read(reader.Execute)
    layers = _layers(image)
    if layers[0].size == 1:
        return [Region(segment.number, segment.name, np.zeros(0, int)) for segment in segments]
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    to_grid = grid.index_of(affine, layers[0].shape)
    regions = []
    for segment in segments:
        index = np.stack(np.nonzero(layers[segment.layer] == segment.value))
        regions.append(Region(segment.number, segment.name, grid.flat(to_grid[:3, :3] @ index + to_grid[:3, 3:])))
    return regions


def slicer_segment_names(file: Path) -> dict[int, str]:
    """Names of the segments of a segmentation of 3D Slicer, as :func:`slicer_segments` numbers them."""
    return {segment.number: segment.name for segment in _segments(_header(file))}


def is_slicer_segmentation(path: Path) -> bool:
    """Tell whether a file is NRRD whose header describes segments, whatever it is called."""
    if not path.name.lower().endswith(SUFFIXES) or not path.is_file():
        return False
    with open(path, "rb") as stream:
        return stream.readline(16).startswith(b"NRRD") and any(line.startswith(b"Segment0_") for line in _lines(stream))


def is_whole_seg_nrrd(path: Path) -> bool:
    """Tell whether a segmentation of 3D Slicer can be read to its end."""
    if not is_slicer_segmentation(path):
        return False
    try:
        _read(_header(path).Execute)
    except ValueError:
        return False
    return True


def check_simpleitk() -> None:
    """Raise an OptionalImportError where SimpleITK is not installed."""
    if not has_sitk:
        raise OptionalImportError(HINT)


def _lines(stream: Any) -> Iterator[bytes]:
    """Lines of the header of a NRRD file, up to the empty one behind which the voxels begin."""
    while (line := stream.readline(1 << 16)).strip():
        yield line


def _header(file: Path) -> Any:
    check_simpleitk()
    check_checksums(file)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO")
    reader.SetFileName(str(file))
    _read(reader.ReadImageInformation)
    return reader


def _read(read: Any) -> Any:
    try:
        return read()
    except RuntimeError:
        raise ValueError("cannot be read as NRRD, it is damaged or truncated; save or copy it again.") from None


def _segments(reader: Any) -> list[_Segment]:
    fields = {key: reader.GetMetaData(key).strip() for key in reader.GetMetaDataKeys()}
    representation = next((fields[key] for key in REPRESENTATIONS if fields.get(key)), BINARY)
    if representation != BINARY:
        raise ValueError(f"stores its segments as {representation}; save them in 3D Slicer as {BINARY}.")
    if reader.GetDimension() != 3:
        raise ValueError(f"has {reader.GetDimension()} axes of space; expected 3, and one of layers.")
    num_layers = reader.GetNumberOfComponents()
    indices = sorted({int(match[1]) for match in map(FIELD.fullmatch, fields) if match})
    found = [_segment(fields, index, place, num_layers) for place, index in enumerate(indices)]
    values = [segment.value for segment in found]
    if len(set(values)) == len(values):
        return found
    return [segment._replace(number=number) for number, segment in enumerate(found, start=1)]


def _segment(fields: Mapping[str, str], index: int, place: int, num_layers: int) -> _Segment:
    """Read one segment; old files say neither layer nor value, as they had a layer for each segment."""
    own = {name: fields.get(f"Segment{index}_{name}") for name in ("Name", "ID", "Layer", "LabelValue")}
    name = own["Name"] or own["ID"] or f"Segment_{index + 1}"
    layer = own["Layer"] or (str(place) if num_layers > 1 else "0")
    value = own["LabelValue"] or ("1" if num_layers > 1 else str(place + 1))
    if not layer.isdecimal() or not value.isdecimal() or int(layer) >= num_layers or int(value) < 1:
        raise ValueError(
            f"says that its segment {name} has the value {value} in layer {layer} of {num_layers} (from 0); save it in "
            "3D Slicer again."
        )
    return _Segment(int(value), name, int(layer), int(value))


def _layers(image: Any) -> np.ndarray:
    """Voxels of an image as (layers, H, W, D)."""
    voxels = sitk.GetArrayViewFromImage(image)
    return (voxels if voxels.ndim == 4 else voxels[..., None]).T
