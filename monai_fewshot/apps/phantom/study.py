# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel as nib
import numpy as np
from monai.config import PathLike
from monai.data.utils import orientation_ras_lps
from monai.utils import OptionalImportError, optional_import
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from monai_fewshot.data.dicom.series import series_name
from monai_fewshot.utils import write_atomically

from .volume import check_phantom_arguments, make_phantom_volume

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["make_phantom_studies"]

pydicom, has_pydicom = optional_import("pydicom")
uids, _ = optional_import("pydicom.uid")

MOST_STUDIES = 100
SURNAMES = ("Quillfeather", "Brambleby", "Ottersby", "Fennimore", "Thistlewood", "Wexcombe", "Umberleigh")
GIVEN_NAMES = ("Ottoline", "Cuthbert", "Peregrine", "Araminta", "Ignatius", "Philippa", "Leopold", "Drusilla", "Mungo")
AXIAL, CORONAL, SAGITTAL = "LPS", "LIP", "PIR"
"""Where columns, rows and slices of a plane count to."""

STORED_ZERO = {"mr": 0, "ct": 1024}
EVERY = 4
MR_TAGS = {
    "ScanningSequence": "SE",
    "SequenceVariant": "SK",
    "ScanOptions": "FS",
    "MRAcquisitionType": "2D",
    "RepetitionTime": 2400,
    "EchoTime": 80,
    "EchoTrainLength": 12,
    "MagneticFieldStrength": 1.5,
}
CT_TAGS = {"KVP": 120, "AcquisitionNumber": 1, "RescaleIntercept": -STORED_ZERO["ct"], "RescaleSlope": 1}


class _Series(NamedTuple):
    """A series of a study: places in the volume, by axis codes of the plane and numbers of its slices."""

    number: int
    description: str
    image_type: tuple[str, ...]
    slices: tuple[tuple[str, tuple[int, ...]], ...]


def make_phantom_studies(
    output_dir: PathLike,
    num_studies: int = 3,
    size: Sequence[int] = (128, 128, 32),
    modality: str = "mr",
    seed: int = 0,
) -> Path:
    """Write DICOM studies of phantom patients as a scanner's archive keeps them, and the labels of their volumes.

    Below ``archive`` lie the files, called by hashes, in folders called by hashes, all series of a study mixed. Each
    study has a localizer of three planes, a volume of axial slices and a series of coronal ones; the patients have
    made-up names, numbers and dates of birth. ``labels`` holds the label map of each volume as NIfTI, called by the
    name that :func:`monai_fewshot.data.load_scans` gives to the series: one may serve as annotation, the others tell
    how well it went. Study i is a function of ``seed`` and i alone, and shows patient i of
    :func:`monai_fewshot.apps.phantom.make_phantom_volume`.

    From a shell: ``python -m monai_fewshot.apps.phantom studies --output_dir studies``.

    Args:
        output_dir: folder to write to.
        num_studies: number of studies, 1 to 100, each of another patient.
        size: voxels of the volumes by axis, at least (32, 32, 8).
        modality: "mr" (series described as "t2_spir_tra" and "t2_spir_cor") or "ct" ("Abdomen venous 6.0" and "Abdomen
            coronal").
        seed: number of the population the patients are drawn from, from 0.

    Returns:
        The folder.

    Raises:
        OptionalImportError: without pydicom.
        ValueError: if an argument is out of its range.
    """
    if not has_pydicom:
        raise OptionalImportError('DICOM studies need pydicom: pip install "monai_fewshot[pydicom]".')
    voxels = check_phantom_arguments(seed, size, modality)
    if not 1 <= num_studies <= MOST_STUDIES:
        raise ValueError(f"num_studies is {num_studies}; give 1 to {MOST_STUDIES}.")
    folder = Path(output_dir).expanduser()
    for index in range(num_studies):
        image, label, affine = make_phantom_volume(index, seed, voxels, modality)
        identity = f"monai_fewshot phantom {seed} {index} {modality} {voxels}"
        study, labeled_uid = folder / "archive" / _hash(identity)[:8], ""
        for series in _series_of(modality, voxels):
            uid = _write_series(study, series, image, affine, identity, _patient(identity, index), modality)
            labeled_uid = uid if series.number == 2 else labeled_uid
        volume = nib.Nifti1Image(label, affine)
        path = folder / "labels" / f"{series_name(labeled_uid)}.nii.gz"
        write_atomically(path, gzip.compress(volume.to_bytes(), compresslevel=1, mtime=0))
    return folder


def _series_of(modality: str, size: tuple[int, int, int]) -> list[_Series]:
    middle = [(codes, (size[axis] // 2,)) for axis, codes in ((2, AXIAL), (1, CORONAL), (0, SAGITTAL))]
    names = ("t2_spir_tra", "t2_spir_cor") if modality == "mr" else ("Abdomen venous 6.0", "Abdomen coronal")
    axial, coronal = (AXIAL, tuple(range(size[2]))), (CORONAL, tuple(range(0, size[1], EVERY)))
    return [
        _Series(1, "localizer", ("ORIGINAL", "PRIMARY", "LOCALIZER"), tuple(middle)),
        _Series(2, names[0], ("ORIGINAL", "PRIMARY", "AXIAL"), (axial,)),
        _Series(3, names[1], ("DERIVED", "SECONDARY", "REFORMATTED"), (coronal,)),
    ]


def _patient(identity: str, index: int) -> dict[str, Any]:
    """Patient and study, made up."""
    digits = str(int(_hash(identity), 16))
    return {
        "PatientName": f"{SURNAMES[index % len(SURNAMES)]}^{GIVEN_NAMES[index % len(GIVEN_NAMES)]}",
        "PatientID": f"MRN{digits[:8]}",
        "PatientBirthDate": f"19{40 + index % 50}0{1 + index % 9}1{index % 10}",
        "PatientSex": "MF"[index % 2],
        "AccessionNumber": f"A{digits[8:16]}",
        "ReferringPhysicianName": "Pennyroyal^Hestia",
        "StudyID": digits[16:20],
        "StudyDate": "20240506",
        "StudyTime": "070809",
        "StudyInstanceUID": _uid(identity),
        "FrameOfReferenceUID": _uid(identity, "frame of reference"),
        "PositionReferenceIndicator": "",
    }


def _write_series(
    folder: Path,
    series: _Series,
    image: NDArray[np.int16],
    affine: NDArray[np.float64],
    identity: str,
    patient: dict[str, Any],
    modality: str,
) -> Any:
    uid = _uid(identity, series.description)
    number = 0
    for codes, places in series.slices:
        voxels, to_space = _turned(image, affine, codes)
        step = places[1] - places[0] if len(places) > 1 else 1
        for place in places:
            number += 1
            ds = _image_of(voxels[..., place], to_space, place, step, modality)
            ds.update(_elements(patient))
            ds.ImageType, ds.SeriesDescription = list(series.image_type), series.description
            ds.SeriesInstanceUID, ds.SeriesNumber, ds.InstanceNumber = uid, series.number, number
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = _uid(uid, str(number))
            stream = io.BytesIO()
            pydicom.dcmwrite(stream, ds, enforce_file_format=True)
            write_atomically(folder / _hash(str(ds.SOPInstanceUID))[:12], stream.getvalue())
    return uid


def _turned(
    image: NDArray[np.int16], affine: NDArray[np.float64], codes: str
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Turn a volume so that its axes are columns, rows and slices of a plane; the affine goes to LPS."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    return apply_orientation(image, turn), orientation_ras_lps(affine) @ inv_ornt_aff(turn, image.shape)


def _image_of(plane: NDArray[np.int16], to_space: NDArray[np.float64], place: int, step: int, modality: str) -> Dataset:
    spacing = np.linalg.norm(to_space[:3, :3], axis=0)
    directions = to_space[:3, :2] / spacing[:2]
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uids.ExplicitVRLittleEndian
    storage = uids.MRImageStorage if modality == "mr" else uids.CTImageStorage
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = storage
    ds.update(
        _elements(
            {
                "Modality": modality.upper(),
                "Manufacturer": "Phantom",
                "BodyPartExamined": "ABDOMEN",
                "PatientPosition": "HFS",
            }
        )
    )
    ds.update(_elements(MR_TAGS if modality == "mr" else CT_TAGS))
    ds.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
    ds.SliceThickness, ds.SpacingBetweenSlices = _decimal(spacing[2]), _decimal(spacing[2] * step)
    ds.ImageOrientationPatient = [_decimal(value) for value in directions.T.ravel()]
    ds.ImagePositionPatient = [_decimal(value) for value in to_space[:3, :3] @ (0, 0, place) + to_space[:3, 3]]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Columns, ds.Rows = plane.shape
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    stored = np.ascontiguousarray(plane.T.astype(np.int32) + STORED_ZERO[modality])
    ds.PixelData = stored.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def _elements(tags: dict[str, Any]) -> Dataset:
    ds = pydicom.Dataset()
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    return ds


def _decimal(value: float) -> Any:
    """A decimal string, of which DICOM allows 16 characters."""
    return pydicom.valuerep.DSfloat(round(float(value), 6) + 0.0, auto_format=True)


def _uid(*texts: str) -> Any:
    return uids.generate_uid(entropy_srcs=list(texts))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
