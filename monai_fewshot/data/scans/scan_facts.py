# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_tensor
from tqdm import tqdm

from monai_fewshot.data.dicom.header import slices_of_file
from monai_fewshot.data.layouts.scan_files import is_picture, volume_suffix

from .check_scan import CheckScand
from .check_scans import ScanReader, read_and_check
from .scan_folder import Scan

__all__ = ["ScanFacts", "read_scan_facts"]

VALUES_SAMPLED = 1 << 20
MOST_LABEL_VALUES = 32
"""Values above which an image is taken for no label map."""


@dataclass(frozen=True)
class ScanFacts:
    """What a scan is, and what is wrong with it.

    Attributes:
        name: of the scan.
        file: of the image; the name of the scan for a DICOM series, whose files may name a patient.
        format: suffix of the file without its dot, or "DICOM".
        problems: one line each; a scan with any cannot be used.
        modality: of a DICOM series, such as "MR"; else empty.
        channels: number of channels; 0 where the scan cannot be read.
        size: voxels by axis.
        spacing: mm by axis; none of a 2D picture.
        axes: where the axes lead, such as "RAS"; empty for a 2D picture.
        values: lowest and highest intensity, in between them the 1st and the 99th percentile.
        class_voxels: voxels by class number of the label, where there is one.
        looks_like_label: whether the image holds a few whole numbers alone, as a label map does.
    """

    name: str
    file: str
    format: str
    problems: tuple[str, ...] = ()
    modality: str = ""
    channels: int = 0
    size: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    axes: str = ""
    values: tuple[float, float, float, float] | None = None
    class_voxels: dict[int, int] = field(default_factory=dict)
    looks_like_label: bool = False


def read_scan_facts(scans: Sequence[Scan], num_channels: int | None = 1, num_workers: int = 4) -> list[ScanFacts]:
    """Read each scan whole, check it as :func:`monai_fewshot.data.check_scans` does, and tell what it is.

    Args:
        scans: as :func:`monai_fewshot.data.load_scans` returns them.
        num_channels: that images must have; None for any.
        num_workers: number of threads; each holds one scan in memory.

    Returns:
        Facts in the order of the scans; a scan that cannot be used has ``problems``.
    """
    read, check = ScanReader(), CheckScand("image", "label", num_channels=num_channels, allow_missing_keys=True)
    with ThreadPoolExecutor(num_workers) as pool:
        results = pool.map(lambda scan: _facts(scan, read, check), scans)
        hidden = not sys.stderr.isatty()
        return list(tqdm(results, "checking scans", total=len(scans), disable=hidden, leave=False))


def _facts(scan: Scan, read: ScanReader, check: CheckScand) -> ScanFacts:
    loaded, problems = read_and_check(scan, read, check)
    image, label = loaded.get("image"), loaded.get("label")
    is_series = not isinstance(scan["image"], str)
    facts = ScanFacts(
        name=scan["name"],
        file=scan["name"] if is_series else scan["image"],
        format="DICOM" if is_series else _suffix(Path(scan["image"])),
        problems=tuple(dict.fromkeys(problems)),
        modality=_modality(scan["image"]) if is_series else "",
        class_voxels={} if label is None else _class_voxels(label),
    )
    return facts if image is None else _of_image(facts, image)


def _of_image(facts: ScanFacts, image: MetaTensor) -> ScanFacts:
    affine = np.asarray(image.affine, dtype=np.float64)
    if is_picture(Path(facts.file)):
        image, affine = image[..., 0], np.zeros((0, 0))
    return ScanFacts(
        **{
            **vars(facts),
            "channels": image.shape[0],
            "size": tuple(image.shape[1:]),
            "spacing": tuple(float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))[: image.ndim - 1],
            "axes": "".join(code or "?" for code in nibabel.aff2axcodes(affine)) if affine.shape == (4, 4) else "",
            "values": _values(image),
            "looks_like_label": _looks_like_label(convert_to_tensor(image, track_meta=False).flatten()),
        }
    )


def _suffix(file: Path) -> str:
    suffix = file.suffix.lower() if is_picture(file) else volume_suffix(file)
    return suffix.lstrip(".") or "other"


def _values(image: MetaTensor) -> tuple[float, float, float, float] | None:
    voxels = convert_to_tensor(image, track_meta=False).flatten()
    if not voxels.numel():
        return None
    sample = voxels[:: max(1, voxels.numel() // VALUES_SAMPLED)].numpy()
    low, high = np.nanpercentile(sample, [1, 99])
    return float(voxels.min()), float(low), float(high), float(voxels.max())


def _looks_like_label(voxels: torch.Tensor) -> bool:
    """Tell in a sample first, for listing the values of a whole scan takes long."""
    for some in (voxels[:: max(1, len(voxels) // VALUES_SAMPLED)], voxels):
        values = some.unique()
        if (
            not len(values)
            or len(values) > MOST_LABEL_VALUES
            or bool((values != values.round()).any())
            or values[0] < 0
        ):
            return False
    return True


def _class_voxels(label: MetaTensor) -> dict[int, int]:
    values, counts = torch.unique(convert_to_tensor(label, track_meta=False), return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True) if value > 0}


def _modality(files: Sequence[str]) -> str:
    try:
        return slices_of_file(Path(files[0]))[0].modality
    except Exception:
        return ""
