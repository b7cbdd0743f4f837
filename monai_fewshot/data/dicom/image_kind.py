# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["image_kind"]

MODALITIES = {
    "RTDOSE": "doses of a radiotherapy, no scan",
    "RTIMAGE": "projections of a radiotherapy, no volume",
    "SEG": "masks, no scan",
}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
IMAGE_TYPES = {
    "LOCALIZER": "localizers, no volume",
    "MOSAIC": "mosaics, all slices of a volume in one picture; convert them to NIfTI, e.g. with dcm2niix",
    "SCREEN": "screen shots, no scan",
}


def image_kind(ds: Any, image_type: Sequence[str], frame: int | None) -> str:
    """Say what a DICOM image is that is no slice of a volume of gray values.

    Args:
        ds: header of the file, a ``pydicom.Dataset``.
        image_type: words of its ImageType, or of its frame's FrameType, in upper case.
        frame: number of a frame whose place is told; None for the file as a whole.

    Returns:
        Words that follow "these images are", such as "localizers, no volume"; empty for a slice.
    """
    if kind := MODALITIES.get(str(ds.get("Modality") or "")):
        return kind
    if kind := next((IMAGE_TYPES[part] for part in IMAGE_TYPES if any(part in word for word in image_type)), ""):
        return kind
    if int(ds.get("SamplesPerPixel") or 1) > 1 or ds.get("PhotometricInterpretation") == "PALETTE COLOR":
        return "in color; expected gray values"
    if str(ds.get("SOPClassUID") or "").startswith(SECONDARY_CAPTURE):
        return "secondary captures, pictures that a computer made of a scan"
    if frame is None and int(ds.get("NumberOfFrames") or 1) > 1:
        return "files of several frames that do not tell where each lies"
    return ""
