# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of damaged files: refused with their name, read as they were, or read with other content.

    python benchmarks/damaged_files.py --results docs/bring_your_own_data.md

Small files of every format are made, damaged by a seeded generator (a bit flipped, 64 bytes zeroed, the end cut off;
anywhere in the file, or in its header or voxels alone), and read as the commands read them.
"""

from __future__ import annotations

import argparse
import logging
import resource
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import pydicom
import SimpleITK
import torch
from monai.data import MetaTensor
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from monai_fewshot.apps.benchmark import replace_between
from monai_fewshot.data import LoadScand, check_scans, load_scans, write_dicom_seg
from monai_fewshot.utils import load_network, save_checkpoint

SIZE = (24, 20, 8)
KINDS = ("bit", "zeros", "cut")
OUTCOMES = {
    "refused": "refused by name",
    "same": "read as it was",
    "other": "read otherwise",
    "unnamed": "error without the name",
}
MEMORY = 32 << 30
"""Bytes of address space: a damaged header may ask for any amount."""


class Sample(NamedTuple):
    """A sound file.

    Attributes:
        file: that is damaged.
        read: reads it, as arrays.
        names: one of them stands in an error.
        places: first and last byte that may be damaged; None for the end.
    """

    file: Path
    read: Callable[[], Sequence[np.ndarray]]
    names: tuple[str, ...]
    places: tuple[int, int | None] = (0, None)


def volume(folder: Path, name: str, part: str = "") -> Sample:
    """A volume of random voxels; ``part`` is header or voxels."""
    voxels = np.random.default_rng(0).normal(100, 20, SIZE).astype(np.float32)
    file = folder / name
    if name.endswith((".nii", ".nii.gz")):
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.5, 1.5, 4, 1])), file)
        border = 352
    else:
        image = SimpleITK.GetImageFromArray(voxels.T)
        image.SetSpacing([1.5, 1.5, 4])
        SimpleITK.WriteImage(image, str(file), useCompression=True)
        raw = file.read_bytes()
        border = raw.index(b"\n\n") + 2 if name.endswith(".nrrd") else raw.index(b"LOCAL\n") + 6
    places = {"": (0, None), "header": (0, border), "voxels": (border, None)}[part]
    return Sample(file, lambda: scan_arrays({"name": "a", "image": str(file)}), (file.name,), places)


def picture(folder: Path, name: str, **options: Any) -> Sample:
    """A picture of random colors."""
    file = folder / name
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(file, **options)
    return Sample(file, lambda: scan_arrays({"name": "a", "image": str(file)}, channels=3), (file.name,))


def series(folder: Path) -> list[str]:
    """A DICOM series of random voxels."""
    voxels = np.random.default_rng(0).integers(0, 1000, SIZE).astype(np.uint16)
    uids = {
        "SeriesInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
    }
    files = []
    for index in range(SIZE[2]):
        ds = dataset(CTImageStorage, Modality="CT", InstanceNumber=index + 1, **uids)
        ds.PixelSpacing, ds.SliceThickness, ds.ImageOrientationPatient = [1.5, 1.5], 4, [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient, ds.Columns, ds.Rows = [0, 0, 4 * index], SIZE[0], SIZE[1]
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
        ds.PixelData = voxels[..., index].T.tobytes()
        files.append(saved(ds, folder / "series" / f"{index}.dcm"))
    return files


def dicom_slice(folder: Path) -> Sample:
    """One slice of a DICOM series, of which errors tell the folder or a hash, not the file."""
    files = series(folder)
    return Sample(
        Path(files[3]), lambda: scan_arrays(load_scans(folder / "series")[0]), (str(folder / "series"), "series_")
    )


def dicom_seg(folder: Path) -> Sample:
    """A DICOM SEG of two organs."""
    files = series(folder)
    return annotation(files, write_dicom_seg(organs(), files, {1: "liver", 2: "spleen"}, folder / "seg.dcm"))


def rtstruct(folder: Path) -> Sample:
    """An RTSTRUCT of one organ."""
    files = series(folder)
    uid = pydicom.dcmread(files[0]).FrameOfReferenceUID
    ds = dataset(RTStructureSetStorage, Modality="RTSTRUCT", SeriesInstanceUID=generate_uid())
    region, drawn = Dataset(), Dataset()
    region.ROINumber, region.ROIName, region.ReferencedFrameOfReferenceUID = 1, "liver", uid
    drawn.ReferencedROINumber, drawn.ContourSequence = 1, []
    for index in range(2, 6):
        contour = Dataset()
        contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 4
        corners = [(6, 6), (21, 6), (21, 18), (6, 18)]
        contour.ContourData = [value for x, y in corners for value in (x, y, 4 * index)]
        drawn.ContourSequence.append(contour)
    ds.StructureSetROISequence, ds.ROIContourSequence = [region], [drawn]
    return annotation(files, Path(saved(ds, folder / "regions.dcm")))


def annotation(files: Sequence[str], file: Path) -> Sample:
    """An annotation of a series."""
    scan = {"name": "a", "image": list(files), "label": str(file)}
    return Sample(file, lambda: scan_arrays(scan), (file.name,))


def checkpoint(folder: Path) -> Sample:
    """A checkpoint."""
    network, file = torch.nn.Conv2d(4, 16, 3), folder / "model.pt"
    save_checkpoint({"model": network.state_dict(), "provenance": {"seed": 0}}, file)

    def read() -> list[np.ndarray]:
        other = torch.nn.Conv2d(4, 16, 3)
        load_network(other, file)
        return [tensor.numpy() for tensor in other.state_dict().values()]

    return Sample(file, read, (file.name,))


SAMPLES: dict[str, tuple[str, Callable[[Path], Sample]]] = {
    "NIfTI, header": ("none", lambda folder: volume(folder, "a.nii", "header")),
    "NIfTI, voxels": ("none", lambda folder: volume(folder, "a.nii", "voxels")),
    "NIfTI, gzip": ("all", lambda folder: volume(folder, "a.nii.gz")),
    "NRRD, header": ("none", lambda folder: volume(folder, "a.nrrd", "header")),
    "NRRD, voxels, gzip": ("all", lambda folder: volume(folder, "a.nrrd", "voxels")),
    "MetaImage, header": ("none", lambda folder: volume(folder, "a.mha", "header")),
    "MetaImage, voxels, zlib": ("all", lambda folder: volume(folder, "a.mha", "voxels")),
    "PNG": ("all", lambda folder: picture(folder, "a.png")),
    "JPEG": ("none", lambda folder: picture(folder, "a.jpg")),
    "TIFF": ("none", lambda folder: picture(folder, "a.tif")),
    "DICOM series, one file": ("none", dicom_slice),
    "DICOM SEG": ("none", dicom_seg),
    "RTSTRUCT": ("none", rtstruct),
    "checkpoint": ("all", checkpoint),
}
"""What a checksum of the format covers, and what makes a sound file."""


def scan_arrays(scan: dict[str, Any], channels: int = 1) -> list[np.ndarray]:
    """Check and load a scan, as trainings and inferences do: voxels and affine of image and label."""
    check_scans([scan], num_channels=channels, num_workers=1)
    loaded = LoadScand()(scan)
    tensors = [loaded[key] for key in ("image", "label") if key in scan]
    return [array for tensor in tensors for array in (tensor.as_tensor().numpy(), tensor.affine.numpy())]


def organs() -> MetaTensor:
    """A label map on the grid of :func:`series`."""
    label = torch.zeros(1, *SIZE, dtype=torch.uint8)
    label[:, 4:15, 4:12, 2:6], label[:, 16:22, 13:18, 3:7] = 1, 2
    return MetaTensor(label, affine=torch.diag(torch.tensor([-1.5, -1.5, 4, 1], dtype=torch.float64)))


def dataset(storage: str, **tags: Any) -> Dataset:
    """A DICOM object."""
    ds, ds.file_meta = Dataset(), FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = storage, generate_uid()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = storage, ds.file_meta.MediaStorageSOPInstanceUID
    for name, value in tags.items():
        setattr(ds, name, value)
    return ds


def saved(ds: Dataset, file: Path) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(file, enforce_file_format=True)
    return str(file)


def damaged(raw: bytes, kind: str, places: tuple[int, int | None], random: np.random.Generator) -> bytes:
    """The bytes of a file with one damage."""
    place = int(random.integers(places[0], places[1] or len(raw)))
    if kind == "cut":
        return raw[:place]
    content = bytearray(raw)
    if kind == "bit":
        content[place] ^= 1 << int(random.integers(8))
    else:
        content[place : min(place + 64, places[1] or len(raw))] = bytes(min(place + 64, places[1] or len(raw)) - place)
    return bytes(content)


def outcomes(sample: Sample, tries: int, seed: int) -> Iterator[tuple[str, str]]:
    """Damage a file again and again; yields what became of it, and the error."""
    raw, whole = sample.file.read_bytes(), sample.read()
    random = np.random.default_rng(seed)
    for kind in KINDS:
        for _ in range(tries):
            content = damaged(raw, kind, sample.places, random)
            sample.file.write_bytes(content)
            try:
                arrays = sample.read()
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                known = isinstance(error, (ValueError, FileNotFoundError))
                yield "refused" if known and any(name in text for name in sample.names) else "unnamed", text
            else:
                alike = len(arrays) == len(whole) and all(map(np.array_equal, arrays, whole))
                yield "same" if alike else "other", ""


def report(tries: int, seed: int, formats: Sequence[str]) -> tuple[str, list[str]]:
    """The table, and what should not be."""
    lines = [
        "| format | checksum | damaged | " + " | ".join(OUTCOMES.values()) + " |",
        "|---|---|---" + "|---" * 4 + "|",
    ]
    wrong = []
    for name in formats:
        checksum, make = SAMPLES[name]
        folder = Path(tempfile.mkdtemp())
        found = list(outcomes(make(folder), tries, seed))
        shutil.rmtree(folder)
        counts = Counter(outcome for outcome, _ in found)
        lines.append(
            f"| {name} | {checksum} | {len(found)} | " + " | ".join(str(counts[key]) for key in OUTCOMES) + " |"
        )
        wrong += [f"{name}: {text}" for outcome, text in found if outcome == "unnamed"]
        wrong += [f"{name}: {counts['other']} read otherwise"] * (checksum == "all" and counts["other"] > 0)
    return "\n".join(lines), wrong


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=50, help="of each kind of damage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="+", choices=list(SAMPLES), default=list(SAMPLES))
    parser.add_argument("--results", type=Path, help="Markdown file with the marker lines")
    arguments = parser.parse_args(words)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    text, wrong = report(arguments.tries, arguments.seed, arguments.formats)
    print(text, *wrong, sep="\n")
    if arguments.results is not None:
        replace_between(arguments.results, "damaged_files", text)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
