# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import warnings

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from dicom_files import AXIAL, CORONAL, IDENTIFIERS, PATIENT_NAME, SAGITTAL, made_pixels, oblique, write_series
from monai.data import MetaTensor
from monai.transforms import Flip, LoadImage, Orientation, Transpose
from monai.utils import OptionalImportError
from pydicom.sr.codedict import codes

from monai_fewshot.data import LoadScand, load_segment_codes, write_dicom_seg

NAMES = {1: "liver", 2: "left kidney", 3: "implant"}
SIZE = (12, 10, 6)
LEFT_HANDED = AXIAL @ np.diag([1, 1, -1])
PLANES = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL, "oblique": oblique(), "downwards": LEFT_HANDED}


def _label(image):
    """Two boxes and, of the third class, nothing."""
    label = torch.zeros(SIZE, dtype=torch.uint8)
    label[2:6, 3:9, 1:4] = 1
    label[8:10, 0:4, 2:6] = 2
    return MetaTensor(label[None], affine=image.affine)


def _series(folder, **settings):
    files = write_series(folder / "series", made_pixels(SIZE), **settings)
    return files, LoadImage(image_only=True, ensure_channel_first=True)(str(folder / "series"))


def _points(label):
    """Where the voxels of each class lie, mm in LPS."""
    voxels, affine = label.numpy()[0], np.diag([-1.0, -1, 1, 1]) @ label.affine.numpy()
    return {int(c): np.argwhere(voxels == c) @ affine[:3, :3].T + affine[:3, 3] for c in np.unique(voxels) if c}


def _assert_same_points(found, expected):
    assert found.keys() == expected.keys()
    for number, points in expected.items():
        assert len(found[number]) == len(points)
        distances = np.linalg.norm(found[number][:, None] - points[None], axis=2)
        assert distances.min(axis=1).max() < 1e-3
        assert distances.min(axis=0).max() < 1e-3


def _read_by_pydicom(path):
    """Positions of the pixels of each segment, by the functional groups of each frame."""
    ds = pydicom.dcmread(path)
    shared = ds.SharedFunctionalGroupsSequence[0]
    directions = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    found = {}
    frames = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    for frame, group in zip(frames, ds.PerFrameFunctionalGroupsSequence, strict=True):
        segment = (group if "SegmentIdentificationSequence" in group else shared).SegmentIdentificationSequence[0]
        number = segment.ReferencedSegmentNumber
        start = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = np.nonzero(frame)
        points = (
            start + np.outer(columns * between_columns, directions[0]) + np.outer(rows * between_rows, directions[1])
        )
        found.setdefault(number, []).append(points)
    return {number: np.concatenate(points) for number, points in found.items()}


def _read_by_highdicom(path):
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    affine = volume.affine
    return {
        int(c): np.argwhere(volume.array == c) @ affine[:3, :3].T + affine[:3, 3] for c in np.unique(volume.array) if c
    }


@pytest.mark.parametrize("plane", PLANES)
def test_the_label_map_comes_back_in_space(plane, tmp_path):
    files, image = _series(tmp_path, directions=PLANES[plane], order=[3, 1, 0, 5, 2, 4])
    label = _label(image)
    path = write_dicom_seg(label, files[::-1], NAMES, tmp_path / "seg.dcm")
    _assert_same_points(_read_by_pydicom(path), _points(label))
    _assert_same_points(_read_by_highdicom(path), _points(label))


def test_itk_reads_one_class_into_the_same_grid(tmp_path):
    files, image = _series(tmp_path, directions=oblique())
    label = _label(image)
    label[label == 2] = 0
    path = write_dicom_seg(label, files, {1: "liver"}, tmp_path / "seg.dcm")
    read = SimpleITK.ReadImage(str(path))
    found = np.argwhere(SimpleITK.GetArrayFromImage(read) > 0)[:, ::-1]
    points = np.array([read.TransformContinuousIndexToPhysicalPoint(index.astype(float).tolist()) for index in found])
    _assert_same_points({1: points}, _points(label))


def test_itk_reads_the_frames_that_pydicom_reads(tmp_path):
    files, image = _series(tmp_path, order=[3, 1, 0, 5, 2, 4])
    path = write_dicom_seg(_label(image), files, NAMES, tmp_path / "seg.dcm")
    frames = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))) > 0
    np.testing.assert_array_equal(frames, pydicom.dcmread(path).pixel_array > 0)


@pytest.mark.parametrize(
    "turn",
    [Orientation("RAS"), Orientation("SPL"), Transpose((0, 3, 1, 2)), Flip((0, 2))],
    ids=["RAS", "SPL", "axes", "flip"],
)
def test_axes_of_the_label_map_play_no_part(turn, tmp_path):
    files, image = _series(tmp_path, directions=oblique(), order=[2, 0, 1, 5, 4, 3])
    label = _label(image)
    if isinstance(turn, Transpose):
        turned = MetaTensor(label.as_tensor().permute(0, 3, 1, 2), affine=label.affine[:, [2, 0, 1, 3]])
    else:
        turned = turn(label)
    path = write_dicom_seg(turned, files, NAMES, tmp_path / "seg.dcm")
    _assert_same_points(_read_by_pydicom(path), _points(label))


def _enhanced(folder, files):
    """Turn series into one multi-frame file."""
    source = [pydicom.dcmread(file) for file in files]
    image = highdicom.legacy.LegacyConvertedEnhancedMRImage(source, highdicom.UID(), 1, highdicom.UID(), 1)
    folder.mkdir()
    image.save_as(folder / "enhanced.dcm")
    return folder / "enhanced.dcm"


def test_a_multi_frame_file(tmp_path):
    files, _ = _series(tmp_path, directions=oblique(), order=[3, 1, 0, 5, 2, 4])
    file = _enhanced(tmp_path / "multi", sorted(files))
    label = _label(LoadScand()({"name": "a", "image": str(file)})["image"])
    path = write_dicom_seg(label, [file], NAMES, tmp_path / "seg.dcm")
    _assert_same_points(_read_by_pydicom(path), _points(label))
    frames = pydicom.dcmread(file).PerFrameFunctionalGroupsSequence
    for group in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence:
        (reference,) = group.DerivationImageSequence[0].SourceImageSequence
        frame = frames[int(reference.ReferencedFrameNumber) - 1]
        expected = frame.PlanePositionSequence[0].ImagePositionPatient
        assert list(group.PlanePositionSequence[0].ImagePositionPatient) == list(expected)
    with pytest.raises(ValueError, match="12 frames in 2 files: a DICOM segmentation refers to one multi-frame file"):
        write_dicom_seg(label, [file, file], NAMES, tmp_path / "seg.dcm")


def test_a_tilted_gantry(tmp_path):
    files = write_series(tmp_path / "series", made_pixels(SIZE), tilt=(0.0, 0.55, 0.0))
    label = _label(LoadScand()({"name": "a", "image": files})["image"])
    path = write_dicom_seg(label, files, NAMES, tmp_path / "seg.dcm")
    _assert_same_points(_read_by_pydicom(path), _points(label))


def test_frames_refer_to_the_instances_that_they_lie_on(tmp_path):
    files, image = _series(tmp_path, order=[3, 1, 0, 5, 2, 4])
    path = write_dicom_seg(_label(image), files, NAMES, tmp_path / "seg.dcm")
    positions = {ds.SOPInstanceUID: list(ds.ImagePositionPatient) for ds in map(pydicom.dcmread, files)}
    ds, source = pydicom.dcmread(path), pydicom.dcmread(files[0])
    assert len(ds.PerFrameFunctionalGroupsSequence) == 3 + 4
    for group in ds.PerFrameFunctionalGroupsSequence:
        (reference,) = group.DerivationImageSequence[0].SourceImageSequence
        expected = positions[reference.ReferencedSOPInstanceUID]
        assert list(group.PlanePositionSequence[0].ImagePositionPatient) == expected
    listed = ds.ReferencedSeriesSequence[0]
    assert listed.SeriesInstanceUID == source.SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in listed.ReferencedInstanceSequence} == set(positions)
    for name in (
        "StudyInstanceUID",
        "FrameOfReferenceUID",
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "StudyDate",
    ):
        assert ds[name].value == source[name].value
    assert ds.SeriesInstanceUID != source.SeriesInstanceUID


def test_classes_are_coded_and_the_algorithm_is_named(tmp_path):
    files, image = _series(tmp_path)
    own = load_segment_codes({"implant": {"value": "40388003", "meaning": "Implant", "category": "PhysicalObject"}})
    path = write_dicom_seg(_label(image), files, NAMES, tmp_path / "seg.dcm", own, "ssl_alpnet", "1.2")
    read = highdicom.seg.segread(path)
    liver, kidney, implant = (read.get_segment_description(number) for number in (1, 2, 3))
    assert [segment.segment_label for segment in (liver, kidney, implant)] == list(NAMES.values())
    assert liver.segmented_property_type == codes.SCT.Liver
    assert liver.segmented_property_category == codes.SCT.AnatomicalStructure
    assert kidney.segmented_property_type == codes.SCT.Kidney
    (side,) = kidney.segmented_property_type.SegmentedPropertyTypeModifierCodeSequence
    assert (side.CodeValue, side.CodeMeaning) == (codes.SCT.Left.value, "Left")
    assert implant.segmented_property_type.value == "40388003"
    assert "CodingSchemeIdentificationSequence" not in read
    for segment in (liver, kidney, implant):
        (algorithm,) = segment.algorithm_identification
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("ssl_alpnet", "1.2")


def test_a_private_concept_names_its_scheme(tmp_path):
    files, image = _series(tmp_path)
    ds = pydicom.dcmread(write_dicom_seg(_label(image), files, NAMES, tmp_path / "seg.dcm"))
    (scheme,) = ds.CodingSchemeIdentificationSequence
    (code,) = ds.SegmentSequence[2].SegmentedPropertyTypeCodeSequence
    assert scheme.CodingSchemeDesignator == code.CodingSchemeDesignator == "99MONAI_FEWSHOT"
    assert code.CodeMeaning == "implant"


def test_an_empty_mask_is_written(tmp_path):
    files, image = _series(tmp_path)
    path = write_dicom_seg(_label(image) * 0, files, NAMES, tmp_path / "seg.dcm")
    assert not pydicom.dcmread(path).pixel_array.any()


def test_a_single_slice(tmp_path):
    files = write_series(tmp_path / "series", made_pixels((12, 10, 1)))
    image = LoadImage(image_only=True, ensure_channel_first=True)(str(files[0]))
    label = MetaTensor(torch.zeros(1, 12, 10, 1, dtype=torch.uint8), affine=image.affine)
    label[0, 3:5, 2:9] = 1
    _assert_same_points(_read_by_pydicom(write_dicom_seg(label, files, {1: "a"}, tmp_path / "a.dcm")), _points(label))


ODD = {"PatientName": "Quxworth" * 10, "PatientBirthDate": "Zebedee", "PatientSex": "Quxworth", "StudyDate": "Zebedee"}


@pytest.mark.parametrize("tags", [{}, ODD], ids=["usual", "odd values"])
def test_identifiers_stay_in_the_file(tags, tmp_path, caplog, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files, image = _series(tmp_path, PatientAddress="Quxworth Road", OtherPatientIDs="PID-7741-QZ-2", **tags)
    caplog.clear()
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path = write_dicom_seg(_label(image), files, NAMES, tmp_path / "seg.dcm")
    source = pydicom.dcmread(files[0], stop_before_pixels=True)
    told = caplog.text + "".join(capfd.readouterr()) + "".join(str(warning.message) for warning in caught)
    assert not [word for word in (*IDENTIFIERS, source.SOPInstanceUID, source.StudyInstanceUID) if word in told]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(path)
        assert str(ds.PatientName) == tags.get("PatientName", PATIENT_NAME)
    assert "PatientAddress" not in ds
    assert "OtherPatientIDs" not in ds
    assert logging.getLogger("highdicom").level == logging.NOTSET


@pytest.mark.parametrize(
    ("sets", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=\u6d2a^\u5409\u6d1e"),
        ("ISO_IR 100", "M\u00fcller^J\u00f6rg"),
        ("ISO_IR 144", "\u041b\u044e\u043ace\u0440"),
        ("GB18030", "Wang^XiaoDong=\u738b^\u5c0f\u4e1c"),
        ("ISO_IR 192", "\u0e2a\u0e21^\u0e0a\u0e32\u0e22"),
        ("ISO_IR 13", "\uff94\uff8f\uff80\uff9e"),
    ],
)
def test_names_in_any_character_set_come_out_as_utf_8(sets, name, tmp_path):
    files, image = _series(tmp_path, SpecificCharacterSet=lambda _: sets, PatientName=name)
    assert str(pydicom.dcmread(files[0]).PatientName) == name
    names = {1: "\u809d\u81d3", 2: "left kidney", 3: "gr\u00f6\u00dfe"}
    ds = pydicom.dcmread(write_dicom_seg(_label(image), files, names, tmp_path / "seg.dcm"))
    assert (str(ds.PatientName), ds.SpecificCharacterSet) == (name, "ISO_IR 192")
    assert [segment.SegmentLabel for segment in ds.SegmentSequence] == list(names.values())


def test_attributes_that_the_source_lacks_are_empty(tmp_path):
    lacking = ("PatientName", "PatientID", "PatientSex", "AccessionNumber", "StudyID", "StudyTime", "Manufacturer")
    files, image = _series(tmp_path, **dict.fromkeys(lacking))
    ds = pydicom.dcmread(write_dicom_seg(_label(image), files, NAMES, tmp_path / "seg.dcm"))
    assert all(not ds[name].value for name in lacking[:-1])


class TestRefusals:
    @pytest.fixture
    def series(self, tmp_path):
        return _series(tmp_path)

    @pytest.mark.parametrize("names", [{}, {1: "liver"}, {1: "liver", 3: "spleen"}, {0: "background", 1: "a", 2: "b"}])
    def test_classes_without_name(self, series, names, tmp_path):
        files, image = series
        with pytest.raises(ValueError, match=r"holds the classes \[1, 2\], and names are given for .*name all of its"):
            write_dicom_seg(_label(image), files, names, tmp_path / "seg.dcm")

    def test_another_grid(self, series, tmp_path):
        files, image = series
        for affine in (
            image.affine @ np.diag([2.0, 1, 1, 1]),
            image.affine + torch.eye(4)[3] * torch.tensor([[5.0], [0], [0], [0]]),
        ):
            moved = MetaTensor(_label(image).as_tensor(), affine=affine)
            with pytest.raises(
                ValueError, match=r"10 rows, 12 columns\) does not lie on the grid of the mask .*Invertd"
            ):
                write_dicom_seg(moved, files, NAMES, tmp_path / "seg.dcm")

    def test_a_slice_of_the_mask_without_image(self, series, tmp_path):
        files, image = series
        with pytest.raises(ValueError, match=r"Of 104 voxels of the mask, 80 lie on the 5 images"):
            write_dicom_seg(_label(image), [*files[:1], *files[2:]], NAMES, tmp_path / "seg.dcm")

    def test_files_of_two_series(self, series, tmp_path):
        files, image = series
        others = write_series(tmp_path / "other")
        with pytest.raises(ValueError, match="are of 2 different SeriesInstanceUIDs"):
            write_dicom_seg(_label(image), [*files[:3], *others[3:]], NAMES, tmp_path / "seg.dcm")

    def test_a_series_without_position(self, tmp_path, series):
        files = write_series(tmp_path / "secondary", FrameOfReferenceUID=None, ImagePositionPatient=None)
        with pytest.raises(
            ValueError, match=r"6 file\(s\) lacks FrameOfReferenceUID, the place of its images"
        ) as error:
            write_dicom_seg(_label(series[1]), files, NAMES, tmp_path / "seg.dcm")
        assert not [word for word in IDENTIFIERS if word in str(error.value)]

    def test_no_files(self, series, tmp_path):
        with pytest.raises(ValueError, match=r"0 file\(s\) lacks images"):
            write_dicom_seg(_label(series[1]), [], NAMES, tmp_path / "seg.dcm")

    def test_no_highdicom(self, series, tmp_path, monkeypatch):
        monkeypatch.setattr("monai_fewshot.data.dicom.segmentation_writer.has_highdicom", False)
        with pytest.raises(OptionalImportError, match=r"pip install monai_fewshot\[dicom\], or leave dicom_seg out"):
            write_dicom_seg(_label(series[1]), series[0], NAMES, tmp_path / "seg.dcm")
