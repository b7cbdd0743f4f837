# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from dicom_files import (
    AXIAL,
    CORONAL,
    IDENTIFIERS,
    SAGITTAL,
    made_pixels,
    oblique,
    ras_affine,
    write_enhanced,
    write_report,
    write_series,
)
from monai.data import MetaTensor
from monai.transforms import LoadImage
from pydicom.data import get_testdata_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from monai_fewshot.apps.command.scan_sources import write_scan_list
from monai_fewshot.data import LoadScand, load_scans, write_dicom_seg
from monai_fewshot.data.dicom.series_reader import SeriesReader

NOISE = np.arange(6) * 3.0 + np.array([0, 0.02, -0.015, 0.01, 0.013, 0])
CASES = {
    "plain": {},
    "unsigned, rescaled": {"pixels": made_pixels(dtype=np.uint16), "slope": 1.0, "intercept": -1024.0},
    "8 bits": {"pixels": made_pixels(dtype=np.uint8)},
    "fractional slope": {"slope": 0.37, "intercept": 2.5},
    "oblique": {"directions": oblique()},
    "coronal": {"directions": CORONAL},
    "sagittal": {"directions": SAGITTAL},
    "rows and columns swapped": {"directions": AXIAL[:, [1, 0, 2]]},
    "files from top to bottom": {"directions": AXIAL @ np.diag([1.0, 1, -1])},
    "oblique, left-handed": {"directions": oblique() @ np.diag([-1.0, 1, 1])},
    "files in disorder": {"order": [3, 1, 0, 5, 2, 4]},
    "noise of positions": {"offsets": NOISE},
    "implicit": {"transfer_syntax": ImplicitVRLittleEndian},
    "big endian": {"transfer_syntax": ExplicitVRBigEndian},
    "deflated": {"transfer_syntax": DeflatedExplicitVRLittleEndian},
    "RLE": {"transfer_syntax": RLELossless, "modality": "CT", "slope": 2.0, "intercept": -5.0},
    "JPEG-LS": {"transfer_syntax": JPEGLSLossless},
    "no preamble": {"with_preamble": False, "transfer_syntax": ImplicitVRLittleEndian},
    "one slice": {"pixels": made_pixels((12, 10, 1))},
}


def _load(files):
    return LoadImage(ensure_channel_first=True)(files, reader=SeriesReader())


def _shuffled(files):
    return random.Random(3).sample(files, len(files))


def _points(volume):
    """RAS coordinates of all voxels, and their values."""
    index = np.argwhere(np.ones(volume.shape[1:]))
    return index @ volume.affine.numpy()[:3, :3].T + volume.affine.numpy()[:3, 3], volume.numpy().reshape(-1)


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_every_voxel_lies_where_simpleitk_has_it(tmp_path, settings):
    files = write_series(tmp_path, **settings)
    volume = _load(_shuffled(files))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in files])
    reader.SetOutputPixelType(SimpleITK.sitkFloat64)
    expected = reader.Execute()
    assert volume.shape[1:] == expected.GetSize()
    points, values = _points(volume)
    for point, value in zip(points, values, strict=True):
        place = np.array(expected.TransformPhysicalPointToContinuousIndex((-point[0], -point[1], point[2])))
        assert np.abs(place - place.round()).max() < 1e-6
        assert value == pytest.approx(expected[tuple(int(number) for number in place.round())], abs=1e-3)


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_every_voxel_lies_where_it_was_written(tmp_path, settings):
    volume = _load(_shuffled(write_series(tmp_path, **settings)))
    pixels = settings.get("pixels", made_pixels())
    written = pixels * settings.get("slope", 1.0) + settings.get("intercept", 0.0)
    spacing = (0.8, 0.7, 3.0) if pixels.shape[2] > 1 else (0.8, 0.7, 1.0)
    to_index = np.linalg.inv(ras_affine(settings.get("directions", AXIAL), spacing))
    points, values = _points(volume)
    index = points @ to_index[:3, :3].T + to_index[:3, 3]
    assert np.abs(index - index.round()).max() < 1e-6
    np.testing.assert_allclose(values, written[tuple(index.round().astype(int).T)], rtol=1e-6)


def test_slices_of_own_slope(tmp_path):
    """PET: ITK rounds to the first slice's kind of number, so that it is no reference here."""
    slopes = np.array([1.0, 1.5, 2.25, 3.0, 0.5, 0.125])
    volume = _load(write_series(tmp_path, modality="PT", slope=slopes, intercept=0.0))
    np.testing.assert_allclose(volume[0].numpy(), made_pixels() * slopes, rtol=1e-6)


def test_tilted_gantry_shears_the_grid(tmp_path):
    volume = _load(_shuffled(write_series(tmp_path, modality="CT", tilt=(0.0, 0.8, 0.0))))
    affine = ras_affine()
    affine[1, 2] -= 0.8
    np.testing.assert_allclose(volume.affine.numpy(), affine, atol=1e-9)
    np.testing.assert_array_equal(volume[0].numpy(), made_pixels())


def test_folder_of_one_series(tmp_path):
    write_series(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    np.testing.assert_array_equal(_load(tmp_path)[0].numpy(), made_pixels())


def test_meta_data_hold_nothing_of_the_patient(tmp_path):
    for pixels in (made_pixels(), made_pixels((12, 10, 1))):
        files = write_series(tmp_path / str(pixels.shape[2]), pixels, frame_of_reference_uid="1.2.3")
        volume = _load(files)
        assert volume.meta["frame_of_reference"] == "1.2.3"
        assert not [word for word in IDENTIFIERS if word in str(volume.meta)]


def _enhanced(folder, files):
    """Turn a series into one multi-frame file."""
    import highdicom

    source = [pydicom.dcmread(file) for file in files]
    kind = {
        "CT": highdicom.legacy.LegacyConvertedEnhancedCTImage,
        "MR": highdicom.legacy.LegacyConvertedEnhancedMRImage,
    }
    image = kind[source[0].Modality](source, generate_uid(), 1, generate_uid(), 1)
    folder.mkdir()
    image.save_as(folder / "enhanced.dcm")
    return folder / "enhanced.dcm"


@pytest.mark.parametrize("modality", ["MR", "CT"])
@pytest.mark.parametrize("order", [None, [3, 1, 0, 5, 2, 4]], ids=["in order", "in disorder"])
def test_multi_frame_file(tmp_path, modality, order):
    settings = {"directions": oblique(), "modality": modality, "order": order}
    settings |= {"slope": 2.0, "intercept": -7.0} if modality == "CT" else {}
    files = write_series(tmp_path / "single", **settings)
    expected = _load(files)
    file = _enhanced(tmp_path / "multi", sorted(files))
    volume = _load(file)
    assert pydicom.dcmread(file).NumberOfFrames == 6
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-6)
    np.testing.assert_array_equal(volume.numpy(), expected.numpy())


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        ((0, 800), lambda value, _: {"MRDiffusionSequence": {"DiffusionBValue": value}}),
        ((80, 10), lambda value, _: {"MREchoSequence": {"EffectiveEchoTime": value}}),
        ((1, 2, 3), lambda value, _: {"FrameContentSequence": {"TemporalPositionIndex": value}}),
        ((1, 2), lambda value, k: {"FrameContentSequence": {"DimensionIndexValues": [1, value, k + 1]}}),
        (("MAGNITUDE", "PHASE"), lambda value, _: {"MRImageFrameTypeSequence": {"ComplexImageComponent": value}}),
        (("1", "2"), lambda value, _: {"FrameContentSequence": {"StackID": value}}),
    ],
    ids=["b-values", "echoes", "time points", "dimensions", "components", "stacks"],
)
def test_volumes_of_one_enhanced_file(values, groups, tmp_path):
    """Each is a scan that loads, from a list of scans on disk too, and its mask refers to its own frames."""
    volumes = [made_pixels(seed=seed) for seed in range(len(values))]
    file = write_enhanced(tmp_path / "e.dcm", volumes, [partial(groups, value) for value in values])
    scans = load_scans(tmp_path)
    order = sorted(range(len(values)), key=lambda number: values[number])
    for listed in (scans, load_scans(write_scan_list(tmp_path / "list", scans, {1: "liver"}))):
        assert [scan["name"][-2:] for scan in listed] == [f"_{number + 1}" for number in range(len(values))]
        for scan, number in zip(listed, order, strict=True):
            loaded = LoadScand()(scan)["image"]
            np.testing.assert_array_equal(loaded[0].numpy(), volumes[number])
            np.testing.assert_allclose(loaded.affine, ras_affine(), atol=1e-6)
    label = MetaTensor(torch.zeros(1, 12, 10, 6, dtype=torch.uint8), affine=loaded.affine)
    label[0, 2:5, 3:6, 2] = 1
    seg = pydicom.dcmread(write_dicom_seg(label, scans[1]["image"], {1: "liver"}, tmp_path / "seg" / "seg.dcm"))
    (frame,) = seg.PerFrameFunctionalGroupsSequence
    (reference,) = frame.DerivationImageSequence[0].SourceImageSequence
    assert reference.ReferencedFrameNumber == 6 * order[1] + 3
    assert pydicom.dcmread(file).SOPInstanceUID == reference.ReferencedSOPInstanceUID


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8])
def test_inverted_gray_values_are_as_itk_has_them(dtype, tmp_path):
    files = write_series(tmp_path, made_pixels(dtype=dtype), PhotometricInterpretation="MONOCHROME1", slope=2.0)
    read = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage([str(file) for file in files])).transpose(2, 1, 0)
    np.testing.assert_array_equal(_load(files)[0].numpy(), read)


def test_itk_decodes_what_pydicom_cannot(tmp_path):
    """JPEG 2000 lossless, beside the same image uncompressed, both of pydicom's own test files."""
    file = get_testdata_file("MR_small_jp2klossless.dcm", download=False)
    assert file is not None
    same = get_testdata_file("MR_small.dcm", download=False)
    np.testing.assert_array_equal(_load([file]).numpy(), _load([same]).numpy())


def test_pixels_that_cannot_be_decoded(tmp_path):
    files = write_series(tmp_path, transfer_syntax=RLELossless)
    ds = pydicom.dcmread(files[2])
    ds.PixelData = pydicom.encaps.encapsulate([b"\1\0\0\0" * 20])
    ds.save_as(files[2])
    with pytest.raises(ValueError, match=r"^series_\w{12}: slice 3 of 6 cannot be decoded \(\w+\): its pixels are dam"):
        SeriesReader().get_data(SeriesReader().read(files))


def test_encrypted_pixels(tmp_path):
    files = write_series(tmp_path, transfer_syntax=RLELossless)
    ds = pydicom.dcmread(files[4])
    del ds.PixelData
    ds.save_as(files[4])
    with pytest.raises(ValueError, match=r"^series_\w{12}: slice 5 of 6 holds no pixels: it is encrypted"):
        SeriesReader().get_data(SeriesReader().read(files))


def test_problems_name_no_file(tmp_path):
    files = write_series(tmp_path / "Quxworth", offsets=[0, 3, 6, 12, 15, 18])
    other = write_series(tmp_path / "Quxworth", file_name="Q{}.dcm")
    report = write_report(tmp_path / "Quxworth")
    broken = tmp_path / "Quxworth" / "a.dcm"
    broken.write_bytes(b"broken")
    with pytest.raises(ValueError, match="series_") as caught:
        SeriesReader().read([*files, *other, report, broken])
    lines = str(caught.value).splitlines()
    assert lines[0] == "1 files cannot be read; copy them again."
    assert lines[1] == "there are 3 series in 14 path(s); choose one."
    assert sorted(line.partition(": ")[2][:20] for line in lines[2:]) == [
        "1 of 1 images hold n",
        "1 slice(s) are missi",
    ]
    assert not [word for word in IDENTIFIERS if word in str(caught.value)]


@pytest.mark.parametrize(("thickness", "step"), [(7.5, 7.5), (None, 1.0), (0, 1.0)])
def test_one_slice_is_as_thick_as_it_says(tmp_path, caplog, thickness, step):
    files = write_series(tmp_path / "s", made_pixels((12, 10, 1)), SliceThickness=thickness)
    volume = LoadImage(ensure_channel_first=True)(files, reader=SeriesReader())
    assert abs(np.linalg.det(volume.affine[:3, :3].numpy())) == pytest.approx(0.8 * 0.7 * step, rel=1e-5)
    assert ("is one slice without SliceThickness" in caplog.text) == (not thickness)


def test_pixels_of_no_size_are_refused(tmp_path):
    files = write_series(tmp_path / "s", PixelSpacing=[0, 0.8])
    with pytest.raises(ValueError, match=r"do not tell their spacing \(PixelSpacing\)"):
        LoadImage(ensure_channel_first=True)(files, reader=SeriesReader())
