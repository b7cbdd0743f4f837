# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from dicom_files import IDENTIFIERS, made_pixels, oblique, write_series
from ignite.engine import Engine
from matplotlib.colors import to_rgb
from monai.data import MetaTensor, list_data_collate
from PIL import Image
from slicer_files import read_nrrd_by_hand

from monai_fewshot.data import LoadScand
from monai_fewshot.handlers import OutputFiles, ResultRecords, ScanResults, finish_results
from monai_fewshot.metrics import MEASUREMENT_TABLE, measure
from monai_fewshot.utils import WriteError
from monai_fewshot.visualize import class_colors

SIZE = (12, 10, 6)
NAMES = {1: "liver", 3: "implant"}
ALL = {"formats": ["nifti", "dicom_seg", "seg_nrrd"], "measurements": True, "previews": True}


@pytest.fixture
def scan(tmp_path):
    files = write_series(
        tmp_path / "Quxworth" / "series", made_pixels(SIZE), directions=oblique(), slope=2, intercept=-5
    )
    return {"name": "series_1", "image": [str(file) for file in files]}


def _mask(image):
    label = torch.zeros(1, *SIZE)
    label[0, 2:6, 3:9, 1:4] = 1
    label[0, 8:10, 0:4, 2:6] = 3
    return MetaTensor(label, affine=image.affine)


def _results(tmp_path, scan, **settings):
    files = OutputFiles(tmp_path / "out", **{**ALL, **settings})
    return ScanResults(files, [scan], LoadScand(), NAMES, None, "ssl_alpnet", "1.2")


def _rows(files):
    """What the table of measurements holds in the end."""
    finish_results(files)
    return MEASUREMENT_TABLE.read(files.table)


def _run(results, names, masks, images):
    """Let an engine put out masks of a batch each."""
    batches = [list_data_collate([{"name": n, "image": i}]) for n, i in zip(names, images, strict=True)]
    outputs = iter([[{"pred": mask}] for mask in masks])
    engine = Engine(lambda engine, batch: next(outputs))
    results.attach(engine)
    engine.run(batches)


def test_everything_is_written(scan, tmp_path):
    image = LoadScand()(scan)["image"]
    mask, results = _mask(image), _results(tmp_path, scan)
    _run(results, ["series_1"], [mask], [torch.zeros(1)])
    rows = _rows(results.files)
    assert sorted(file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("[!.]*.*")) == [
        "index.html",
        "measurements.csv",
        "previews/series_1.png",
        "series_1_seg.dcm",
        "series_1_seg.nii.gz",
        "series_1_seg.seg.nrrd",
    ]
    nifti = nibabel.load(results.files.mask("series_1", "nifti"))
    np.testing.assert_array_equal(nifti.dataobj, mask[0].numpy())
    np.testing.assert_allclose(nifti.affine, mask.affine, atol=1e-4)
    assert nifti.get_data_dtype() == np.uint8
    assert str(rows) == str(measure("series_1", image[0].numpy(), mask[0].numpy(), NAMES, mask.affine.numpy()))
    assert rows[0].mean == pytest.approx(float(image[0][mask[0] == 1].mean()), rel=1e-5)
    seg = highdicom.seg.segread(results.files.mask("series_1", "dicom_seg"))
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["liver", "implant"]
    assert seg.SegmentSequence[0].SegmentAlgorithmName == "ssl_alpnet"
    pixels = np.sort(np.unique(seg.get_volume(combine_segments=True).array, return_counts=True)[1])
    np.testing.assert_array_equal(pixels, np.sort(np.unique(mask[0, :, :, 1:6].numpy(), return_counts=True)[1]))
    fields, voxels = read_nrrd_by_hand(results.files.mask("series_1", "seg_nrrd"))
    np.testing.assert_array_equal(voxels, mask[0].numpy())
    assert (fields["Segment1_Name"], fields["Segment1_LabelValue"]) == ("implant", "3")
    color = np.array([float(part) for part in fields["Segment1_Color"].split()])
    np.testing.assert_allclose(color, to_rgb(class_colors(NAMES)[3]), atol=1e-6)
    with Image.open(results.files.preview("series_1")) as picture:
        assert picture.size[0] > 800


def test_only_what_is_wanted_is_written(scan, tmp_path):
    image = LoadScand()(scan)["image"]
    results = _results(tmp_path, scan, formats="nifti", measurements=False, previews=False)
    results.loading = None
    _run(results, ["series_1"], [_mask(image)], [torch.zeros(1)])
    assert [file.name for file in (tmp_path / "out").glob("[!.]*")] == ["series_1_seg.nii.gz"]


def test_a_scan_is_measured_anew_and_others_stay(scan, tmp_path):
    image = LoadScand()(scan)["image"]
    results = _results(tmp_path, scan, formats="nifti", previews=False)
    results.scans["other"] = {**scan, "name": "other"}
    _run(results, ["series_1", "other"], [_mask(image)] * 2, [torch.zeros(1)] * 2)
    _run(results, ["series_1"], [_mask(image) * 0], [torch.zeros(1)])
    rows = _rows(results.files)
    assert [(row.scan, row.label, row.voxels) for row in rows] == [
        ("other", 1, 72),
        ("other", 3, 32),
        ("series_1", 1, 0),
        ("series_1", 3, 0),
    ]


def test_nothing_tells_of_the_patient(scan, tmp_path):
    image = LoadScand()(scan)["image"]
    results = _results(tmp_path, scan)
    _run(results, ["series_1"], [_mask(image)], [torch.zeros(1)])
    source = pydicom.dcmread(scan["image"][0])
    for file in (tmp_path / "out").rglob("*.*"):
        words = [*IDENTIFIERS, source.SeriesInstanceUID]
        assert not [word for word in words if word in file.name]
        if file.suffix != ".dcm":
            assert not [word for word in words if word.encode() in file.read_bytes()]


def test_a_mask_on_another_grid(scan, tmp_path):
    image = LoadScand()(scan)["image"]
    results = _results(tmp_path, scan, formats="nifti")
    with pytest.raises(ValueError, match=r"Scan series_1 has \(12, 10, 6\) voxels, but its mask \(6, 10, 6\).*Invertd"):
        results.write("series_1", MetaTensor(_mask(image).as_tensor()[:, ::2], affine=image.affine))


def test_a_flat_image_is_a_volume_of_one_slice(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.arange(30.0).reshape(5, 6), np.eye(4)), tmp_path / "flat.nii.gz")
    scan = {"name": "flat", "image": str(tmp_path / "flat.nii.gz")}
    results = _results(tmp_path, scan, formats="nifti")
    results.write("flat", MetaTensor(torch.ones(1, 5, 6, 1), affine=torch.eye(4)))
    assert _rows(results.files)[0].p50 == 14.5


def test_numbers_above_255_and_with_gaps_stay(tmp_path):
    names = {2: "vein", 205: "aorta", 850: "ventricle"}
    qform, sform = np.diag([2.0, 1.5, 4, 1]), np.diag([2.0, 1.5, 4, 1])
    sform[:3, 3] = 30, 20, 10
    scan = nibabel.Nifti1Image(np.random.default_rng(0).normal(size=SIZE).astype(np.float32), sform)
    scan.set_qform(qform, 1)
    nibabel.save(scan, tmp_path / "a.nii.gz")
    label = torch.zeros(1, *SIZE)
    label[0, 2:4, 1:4, 1:3], label[0, 8, 2:9, 3], label[0, 5, 5, 5] = 850, 205, 2
    files = OutputFiles(tmp_path / "out", **{**ALL, "formats": ["nifti", "seg_nrrd"]})
    results = ScanResults(files, [{"name": "a", "image": str(tmp_path / "a.nii.gz")}], LoadScand(), names)
    results.write("a", MetaTensor(label, affine=torch.from_numpy(sform)))
    written = nibabel.load(files.mask("a", "nifti"))
    np.testing.assert_array_equal(written.dataobj, label[0])
    rows = {row.label: row for row in _rows(files)}
    assert {number: row.voxels for number, row in rows.items()} == {2: 1, 205: 7, 850: 12}
    assert rows[850].volume_ml == pytest.approx(12 * 2 * 1.5 * 4 / 1000)
    np.testing.assert_array_equal(written.get_qform(), nibabel.load(tmp_path / "a.nii.gz").get_qform())
    segments, source = (SimpleITK.ReadImage(str(file)) for file in (files.mask("a", "seg_nrrd"), tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(segments).T, label[0])
    for end in np.ndindex(2, 2, 2):
        corner = [int(i * (n - 1)) for i, n in zip(end, SIZE, strict=True)]
        places = [image.TransformIndexToPhysicalPoint(corner) for image in (segments, source)]
        np.testing.assert_allclose(*places, atol=1e-4)


def test_two_inferences_in_one_folder_lose_no_row(tmp_path):
    image = MetaTensor(torch.rand(1, *SIZE), affine=torch.eye(4))
    names = [f"scan_{number}" for number in range(8)]
    files = OutputFiles(tmp_path / "out", measurements=True)
    scans = [{"name": name, "image": "a.nii.gz"} for name in names]
    results = ScanResults(files, scans, lambda _scan: {"image": image}, NAMES)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: results.write(name, _mask(image)), names))
    assert [(row.scan, row.label) for row in _rows(files)] == [(n, c) for n in names for c in NAMES]


@pytest.mark.parametrize("output_format", ["nifti", "seg_nrrd"])
def test_a_mask_that_cannot_be_written_is_named_and_what_stood_stays(tmp_path, monkeypatch, output_format):
    image = MetaTensor(torch.rand(1, *SIZE), affine=torch.eye(4))
    scans = [{"name": "a", "image": "a.nii.gz"}]
    results = ScanResults(OutputFiles(tmp_path, formats=output_format), scans, dict, NAMES)
    results.write("a", _mask(image))
    (mask,) = tmp_path.glob("[!.]*")
    before = mask.read_bytes()

    def fail(*_args, **_settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fail_as_itk(*_args, **_settings):
        raise RuntimeError("sitk::ERROR: Write: cannot write the whole file")

    monkeypatch.setattr(nibabel, "save", fail)
    monkeypatch.setattr("SimpleITK.WriteImage", fail_as_itk)
    with pytest.raises(
        WriteError, match=rf"Cannot write {mask}: .*(No space left on device\. It needs|the whole file)"
    ):
        results.write("a", _mask(image))
    assert mask.read_bytes() == before
    assert list(tmp_path.glob("[!.]*")) == [mask]


def test_a_scan_is_recorded_after_all_of_its_files(tmp_path, monkeypatch):
    image = MetaTensor(torch.rand(1, *SIZE), affine=torch.eye(4))
    files = OutputFiles(tmp_path, measurements=True, previews=True)
    results = ScanResults(files, [{"name": "a", "image": "a.nii.gz"}], lambda _scan: {"image": image}, NAMES)
    results.write("a", _mask(image))
    (record,) = ResultRecords(tmp_path).read().values()
    assert record.files == {name: (tmp_path / name).stat().st_size for name in ("a_seg.nii.gz", "previews/a.png")}
    assert [row.voxels for row in record.measurements] == [72, 32]
    results.records.path.unlink()
    monkeypatch.setattr("monai_fewshot.handlers.scan_results.figure_to_png", lambda *_args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        results.write("a", _mask(image))
    assert ResultRecords(tmp_path).read() == {}
