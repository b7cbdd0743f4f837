# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""DICOM files as scanners and annotation tools write them: series, DICOM SEG and RTSTRUCT.

Arrays are indexed as MONAI's readers index them, (column, row, slice); points and directions are in mm in the patient's
left-posterior-superior (LPS) axes, as DICOM has them, affines in right-anterior-superior (RAS) ones, as MONAI has them.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

PATIENT_NAME, PATIENT_ID = "Quxworth^Zebedee", "PID-7741-QZ"
BIRTH_DATE, ACCESSION_NUMBER = "19330217", "ACC55990"
IDENTIFIERS = ("Quxworth", "Zebedee", "quxworth", "zebedee", PATIENT_ID, BIRTH_DATE, ACCESSION_NUMBER)
"""What no log, error, report or file name of ours may hold."""

_STORAGE = {"MR": MRImageStorage, "CT": CTImageStorage, "PT": PositronEmissionTomographyImageStorage}
AXIAL = np.eye(3)
CORONAL = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
SAGITTAL = np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]])


def oblique(degrees_x=20.0, degrees_y=-15.0, degrees_z=30.0):
    """Directions of columns' index, rows' index and slices, as the columns of a rotation matrix."""
    x, y, z = np.deg2rad([degrees_x, degrees_y, degrees_z])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def made_pixels(size=(12, 10, 6), dtype=np.int16, seed=0):
    """Stored values that differ everywhere, negative ones too where the type has them."""
    low = -900 if np.issubdtype(dtype, np.signedinteger) and np.dtype(dtype).itemsize > 1 else 0
    high = min(3000, np.iinfo(dtype).max)
    return np.random.default_rng(seed).integers(low, high, size).astype(dtype)


def ras_affine(directions=AXIAL, spacing=(0.8, 0.7, 3.0), origin=(-50.0, -40.0, 100.0)):
    """Where voxels of a series written with these settings lie: RAS affine of (column, row, slice)."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(directions) @ np.diag(spacing)
    affine[:3, 3] = origin
    return np.diag([-1.0, -1, 1, 1]) @ affine


def write_series(
    folder,
    pixels=None,
    *,
    directions=AXIAL,
    spacing=(0.8, 0.7, 3.0),
    origin=(-50.0, -40.0, 100.0),
    offsets=None,
    tilt=(0.0, 0.0, 0.0),
    order=None,
    file_name="IM{:04d}.dcm",
    slope=None,
    intercept=None,
    modality="MR",
    description="t1_vibe_tra",
    transfer_syntax=ExplicitVRLittleEndian,
    series_uid=None,
    study_uid=None,
    frame_of_reference_uid=None,
    with_preamble=True,
    **tags,
):
    """Write a series, one file to a slice.

    Args:
        folder: it may hold other series already.
        pixels: stored integers (columns, rows, slices), of a type of 8, 16 or 32 bits, signed or not.
        directions: columns are the directions in LPS along which column index, row index and slices count. A
            left-handed matrix makes a series whose slices count against the normal of its planes.
        spacing: mm between columns, rows and slices.
        origin: center of the first voxel in LPS.
        offsets: mm of each slice from the origin, along the third direction; default multiples of ``spacing[2]``.
            Leave some out for gaps, repeat one for doubled slices, add noise.
        tilt: mm in LPS by which each slice lies further than the one before beside that, as with a tilted gantry.
        order: the slices in the order in which files are named and instances numbered; default as they lie.
        file_name: pattern that takes the place in ``order``, from 1.
        slope: rescale slope, one for all or one a slice; None leaves the attribute out.
        intercept: likewise.
        modality: MR, CT, PT or another, which is then stored as secondary capture.
        description: series description; None leaves it out.
        transfer_syntax: of the pixels: implicit or explicit little endian, explicit big endian, deflated, RLELossless
            or JPEGLSLossless.
        series_uid: default a new one; likewise the next two.
        study_uid: see above.
        frame_of_reference_uid: see above.
        with_preamble: whether the files begin as DICOM files do.
        tags: further attributes by keyword, None to leave one out; a list or a function of the slice index gives one
            value a slice, e.g. ``EchoTime=[2.3] * 6``.

    Returns:
        Paths of the files, in the order of the slices of ``pixels``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pixels = made_pixels() if pixels is None else np.asarray(pixels)
    depth = pixels.shape[2]
    directions = np.asarray(directions, dtype=float)
    offsets = np.arange(depth) * spacing[2] if offsets is None else np.asarray(offsets, dtype=float)
    order = list(range(depth)) if order is None else list(order)
    common = {
        "Modality": modality,
        "SeriesDescription": description,
        "SeriesInstanceUID": series_uid or generate_uid(),
        "StudyInstanceUID": study_uid or generate_uid(),
        "FrameOfReferenceUID": frame_of_reference_uid or generate_uid(),
        "PixelSpacing": [spacing[1], spacing[0]],
        "SliceThickness": spacing[2],
        "ImageOrientationPatient": [_decimal(value) for value in (*directions[:, 0], *directions[:, 1])],
    }
    files = []
    for index in range(depth):
        position = np.asarray(origin) + offsets[index] * directions[:, 2] + index * np.asarray(tilt)
        number = order.index(index) + 1
        own = {"ImagePositionPatient": [_decimal(value) for value in position], "InstanceNumber": number}
        own |= {"RescaleSlope": _at(slope, index), "RescaleIntercept": _at(intercept, index)}
        own |= {name: _at(value, index) for name, value in tags.items() if name not in ("ImageType", "PixelSpacing")}
        own |= {name: tags[name] for name in ("ImageType", "PixelSpacing") if name in tags}
        file = folder / file_name.format(number)
        _write_image(file, pixels[:, :, index].T, common | own, transfer_syntax, with_preamble)
        files.append(file)
    return files


def write_enhanced(path, volumes, own, spacing=(0.8, 0.7, 3.0), **tags):
    """Write one enhanced MR file of several volumes at the same axial positions.

    Args:
        path: of the file.
        volumes: stored integers (columns, rows, slices) of each.
        own: by volume a function of the slice index that gives the functional groups of its frames, dictionaries of
            attributes by keyword of the group.
        spacing: mm between columns, rows and slices.
        tags: further attributes of the file.
    """
    ds = _dataset("1.2.840.10008.5.1.4.1.1.4.1")
    measures = _item(PixelSpacing=[spacing[1], spacing[0]], SliceThickness=spacing[2])
    orientation = _item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared = _item(PixelMeasuresSequence=Sequence([measures]), PlaneOrientationSequence=Sequence([orientation]))
    frames = []
    for volume, groups in zip(volumes, own, strict=True):
        for index in range(volume.shape[2]):
            position = _item(ImagePositionPatient=[-50, -40, 100 + spacing[2] * index])
            items = {name: Sequence([_item(**values)]) for name, values in groups(index).items()}
            frames.append(_item(PlanePositionSequence=Sequence([position]), **items))
    stored = np.concatenate([volume.transpose(2, 1, 0) for volume in volumes])
    _set(ds, {"Modality": "MR", "SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid()})
    _set(ds, {"FrameOfReferenceUID": generate_uid(), "ImageType": ["ORIGINAL", "PRIMARY", "OTHER", "NONE"]})
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    ds.NumberOfFrames, ds.Rows, ds.Columns = stored.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.PixelData = stored.astype("<i2").tobytes()
    ds["PixelData"].VR = "OW"
    _set(ds, tags)
    return _save(ds, Path(path), ExplicitVRLittleEndian)


def write_report(folder, name="SR0001.dcm", **tags):
    """Write an object without pixels: a structured report."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    ds = _dataset("1.2.840.10008.5.1.4.1.1.88.11")
    _set(ds, {"Modality": "SR", "SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid(), **tags})
    return _save(ds, Path(folder) / name, ExplicitVRLittleEndian)


def write_seg(path, source_files, labels, names, segmentation_type="BINARY", **options):
    """Write a label map as DICOM SEG on the grid of a series.

    Args:
        path: of the file.
        source_files: the series, in the order of the slices.
        labels: (columns, rows, slices) integers, or for a fractional one (columns, rows, slices, segments) in 0 to 1.
        names: segment labels, of the segments 1, 2, ...
        segmentation_type: BINARY, FRACTIONAL or LABELMAP.
        options: further arguments of ``highdicom.seg.Segmentation``, e.g. ``omit_empty_frames``.
    """
    import highdicom
    from pydicom.sr.codedict import codes

    source = [pydicom.dcmread(file) for file in source_files]
    segments = [
        highdicom.seg.SegmentDescription(
            number,
            name,
            codes.SCT.Organ,
            codes.SCT.Organ,
            highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(names, start=1)
    ]
    labels = np.asarray(labels)
    frames = np.ascontiguousarray(np.moveaxis(labels.swapaxes(0, 1), 2, 0))
    seg = highdicom.seg.Segmentation(
        source_images=source,
        pixel_array=frames.astype(np.float32 if np.issubdtype(labels.dtype, np.floating) else np.uint8),
        segmentation_type=segmentation_type,
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=900,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="maker",
        manufacturer_model_name="model",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)
    return Path(path)


def write_rtstruct(path, source_files, contours, **tags):
    """Write contours as RTSTRUCT.

    Args:
        path: of the file.
        source_files: the series on which they are drawn.
        contours: by name of the region a list of contours, each (points, 3) in mm in LPS.
        tags: further attributes of the file.
    """
    source = pydicom.dcmread(source_files[0], stop_before_pixels=True)
    frame_of_reference = tags.pop("FrameOfReferenceUID", source.FrameOfReferenceUID)
    ds = _dataset(RTStructureSetStorage)
    _set(ds, {"Modality": "RTSTRUCT", "StudyInstanceUID": source.StudyInstanceUID, "SeriesInstanceUID": generate_uid()})
    ds.StructureSetLabel = "regions"
    ds.ReferencedFrameOfReferenceSequence = Sequence([_item(FrameOfReferenceUID=frame_of_reference)])
    ds.StructureSetROISequence = Sequence(
        _item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=frame_of_reference)
        for number, name in enumerate(contours, start=1)
    )
    ds.ROIContourSequence = Sequence(
        _item(
            ReferencedROINumber=number,
            ContourSequence=Sequence(
                _item(
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=len(points),
                    ContourData=[_decimal(value) for value in np.ravel(points)],
                )
                for points in drawn
            ),
        )
        for number, drawn in enumerate(contours.values(), start=1)
    )
    _set(ds, tags)
    return _save(ds, Path(path), ExplicitVRLittleEndian)


def _write_image(file, plane, tags, transfer_syntax, with_preamble):
    ds = _dataset(_STORAGE.get(tags["Modality"], SecondaryCaptureImageStorage))
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Rows, ds.Columns = plane.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8 * plane.dtype.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(np.issubdtype(plane.dtype, np.signedinteger))
    _set(ds, tags)
    order = ">" if transfer_syntax == ExplicitVRBigEndian else "<"
    ds.PixelData = np.ascontiguousarray(plane).astype(plane.dtype.newbyteorder(order)).tobytes()
    ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"
    if transfer_syntax in (RLELossless, JPEGLSLossless):
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.compress(transfer_syntax, generate_instance_uid=False)
    _save(ds, file, transfer_syntax, with_preamble)


def _dataset(sop_class):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, generate_uid()
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = PATIENT_NAME, PATIENT_ID, BIRTH_DATE, "O"
    ds.AccessionNumber, ds.StudyID, ds.SeriesNumber = ACCESSION_NUMBER, "1", 3
    now = datetime.datetime(2024, 5, 6, 7, 8, 9)
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = now.strftime("%Y%m%d")
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = now.strftime("%H%M%S")
    ds.Manufacturer, ds.ReferringPhysicianName = "maker", ""
    return ds


def _set(ds, tags):
    for name, value in tags.items():
        if value is None:
            if name in ds:
                delattr(ds, name)
        else:
            setattr(ds, name, value)


def _save(ds, file, transfer_syntax, with_preamble=True):
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = transfer_syntax
    file.parent.mkdir(parents=True, exist_ok=True)
    if with_preamble:
        pydicom.dcmwrite(file, ds, enforce_file_format=True)
    else:
        ds.preamble = None
        del ds.file_meta
        pydicom.dcmwrite(file, ds, implicit_vr=transfer_syntax.is_implicit_VR, little_endian=True)
    return file


def _item(**tags):
    item = Dataset()
    _set(item, tags)
    return item


def _at(value, index):
    if callable(value):
        return value(index)
    return value[index] if isinstance(value, (list, tuple, np.ndarray)) else value


def _decimal(value):
    """A DICOM decimal string, which holds 16 characters."""
    return pydicom.valuerep.DSfloat(float(value), auto_format=True)
