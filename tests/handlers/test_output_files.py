# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
from dicom_files import IDENTIFIERS, made_pixels, write_series
from monai.data import MetaTensor
from monai.transforms import LoadImage
from monai.utils import OptionalImportError
from PIL import Image

from monai_fewshot.data import MaskWriter, write_dicom_seg, write_seg_nrrd
from monai_fewshot.handlers import OutputFiles, ResultRecords, write_index
from monai_fewshot.metrics import MEASUREMENT_TABLE, QUALITY_TABLE, Measurement, PredictedQuality

QUALITY = PredictedQuality("a", 1, "liver", 0.8, 0.7, 0.9)
ALL = {"formats": ["nifti", "dicom_seg", "seg_nrrd"], "measurements": True, "previews": True}
SCANS = [{"name": name, "image": f"{name}.nii.gz"} for name in ("a", "b.v1", "c")]


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dicom") / "series"
    return write_series(folder, made_pixels())


def _fill(files, name, series):
    """Write everything of a scan."""
    image = LoadImage(image_only=True, ensure_channel_first=True)(str(series[0].parent))
    label = MetaTensor(np.ones((1, 12, 10, 6), np.uint8), affine=image.affine)
    for output_format in files.formats:
        files.mask(name, output_format).parent.mkdir(exist_ok=True)
    writer = MaskWriter(output_dtype=np.uint8)
    writer.set_data_array(label)
    writer.set_metadata({"affine": label.affine}, resample=False)
    writer.write(files.mask(name, "nifti"))
    write_dicom_seg(label, series, {1: "liver"}, files.mask(name, "dicom_seg"))
    write_seg_nrrd(label, {1: "liver"}, files.mask(name, "seg_nrrd"), {1: "red"})
    files.preview(name).parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20), dtype=np.uint8)).save(files.preview(name))


@pytest.fixture
def filled(tmp_path, series):
    files = OutputFiles(tmp_path / "out", **ALL)
    for name in ("a", "b.v1"):
        _fill(files, name, series)
    MEASUREMENT_TABLE.write(
        files.table, [Measurement(name, 1, "liver", 0, 0.0, *[math.nan] * 7) for name in ("a", "b.v1")]
    )
    return files


def _names(scans):
    return [scan["name"] for scan in scans]


def test_only_scans_that_lack_something_are_pending(filled, caplog):
    with caplog.at_level(logging.INFO):
        assert _names(filled.pending(SCANS)) == ["c"]
    assert "2 of 3 scans have all of their results" in caplog.text
    assert _names(filled.pending(SCANS, overwrite=True)) == ["a", "b.v1", "c"]


def test_each_file_counts(filled):
    for path in (*(filled.mask("a", each) for each in ALL["formats"]), filled.preview("a")):
        content = path.read_bytes()
        for damaged in (content[:-40], b""):
            path.write_bytes(damaged)
            assert _names(filled.pending(SCANS)) == ["a", "c"], path
        path.unlink()
        assert _names(filled.pending(SCANS)) == ["a", "c"], path
        path.write_bytes(content)
    filled.table.unlink()
    assert _names(filled.pending(SCANS)) == ["a", "b.v1", "c"]


def test_a_file_is_not_opened_that_has_the_size_of_its_record(filled, monkeypatch):
    written = [*(filled.mask("a", each) for each in ALL["formats"]), filled.preview("a")]
    ResultRecords(filled.output_dir).add("a", written)
    content = written[0].read_bytes()
    written[0].write_bytes(bytes(len(content)))
    opened = []
    for name in ("is_whole_mask", "_is_whole_dicom", "is_whole_seg_nrrd", "is_whole_image"):
        monkeypatch.setattr(f"monai_fewshot.handlers.output_files.{name}", lambda path: opened.append(path) or True)
    assert _names(filled.pending(SCANS)) == ["c"]
    assert {path.name.partition(".")[0].partition("_")[0] for path in opened if path.is_file()} == {"b"}
    written[0].write_bytes(content[:-1])
    opened.clear()
    filled.pending(SCANS)
    assert written[0] in opened
    written[0].unlink()
    monkeypatch.setattr("monai_fewshot.handlers.output_files.is_whole_mask", lambda path: path.is_file())
    assert _names(filled.pending(SCANS)) == ["a", "c"]


def test_rows_that_wait_in_a_record_count(filled):
    filled.table.unlink()
    rows = [Measurement("a", 1, "liver", 0, 0.0, *[math.nan] * 7)]
    ResultRecords(filled.output_dir).add("a", [filled.mask("a", each) for each in ALL["formats"]], rows)
    assert _names(filled.pending(SCANS)) == ["b.v1", "c"]


def test_what_is_not_wanted_does_not_count(filled):
    nifti = OutputFiles(filled.output_dir)
    filled.table.unlink()
    filled.preview("a").unlink()
    filled.mask("a", "dicom_seg").unlink()
    assert _names(nifti.pending(SCANS)) == ["c"]
    assert _names(OutputFiles(filled.output_dir, postfix="other").pending(SCANS)) == ["a", "b.v1", "c"]


def test_the_index_shows_what_is_there(filled):
    (filled.output_dir / ".a_seg.nii.gz").write_bytes(b"")
    (filled.output_dir / "a_other.nii.gz").write_bytes(b"")
    page = write_index(filled, {"name": "net"})
    assert page == filled.output_dir / "index.html"
    text = page.read_text()
    for part in (
        'href="a_seg.nii.gz"',
        'href="b.v1_seg.dcm"',
        'href="a_seg.seg.nrrd"',
        'href="measurements.csv"',
        "liver",
        "net",
        "2 scans",
    ):
        assert part in text
    assert text.count("data:image/png") == 2
    assert "a_other" not in text
    assert write_index(OutputFiles(filled.output_dir)) is None


@pytest.mark.parametrize("formats", [[], ["jpg"], ["nifti", "seg"], "dicom"])
def test_formats(formats):
    with pytest.raises(ValueError, match=r"outputs are \[.*\]; give one or several of \['nifti', 'dicom_seg', 's"):
        OutputFiles("out", formats=formats)


def test_one_format_may_stand_without_list():
    assert OutputFiles("out", formats="dicom_seg").formats == ("dicom_seg",)


def test_dicom_segmentations_are_of_dicom_series(series, tmp_path, monkeypatch):
    files = OutputFiles(tmp_path, formats=["dicom_seg"])
    listed = {"name": "s", "image": [str(file) for file in series]}
    folder = {"name": "f", "image": str(series[0].parent)}
    files.check([listed, folder])
    with pytest.raises(ValueError, match=r"dicom_seg, but 1 of 2 scans are no DICOM series: a\.") as error:
        files.check([listed, SCANS[0]])
    assert not [word for word in IDENTIFIERS if word in str(error.value)]
    OutputFiles(tmp_path).check(SCANS)
    monkeypatch.setattr("monai_fewshot.data.dicom.segmentation_writer.has_highdicom", False)
    with pytest.raises(OptionalImportError, match="pip install"):
        files.check([listed])
    OutputFiles(tmp_path).check([listed])


def test_series_that_a_dicom_segmentation_cannot_refer_to_are_all_named(series, tmp_path):
    faults = {
        "space": ({"FrameOfReferenceUID": None}, "lacks FrameOfReferenceUID, which a DICOM segmentation refers to"),
        "studies": (
            {"StudyInstanceUID": [f"1.{k}" for k in range(6)]},
            "are of 6 different StudyInstanceUIDs: give the files of one series",
        ),
        "instances": ({"SOPInstanceUID": "1.2.3"}, "5 of 6 source files have the SOPInstanceUID of another one"),
    }
    scans = [{"name": "sound", "image": [str(file) for file in series]}]
    for name, (tags, _) in faults.items():
        scans.append({"name": name, "image": [str(file) for file in write_series(tmp_path / name, **tags)]})
    with pytest.raises(ValueError, match=r"DICOM segmentations of 3 of 4 series cannot be written:\n") as caught:
        OutputFiles(tmp_path / "out", formats=["nifti", "dicom_seg"]).check(scans)
    for line, (name, (_, text)) in zip(str(caught.value).splitlines()[1:], faults.items(), strict=True):
        assert line.startswith(f"{name}: ")
        assert text in line
    assert not [word for word in IDENTIFIERS if word in str(caught.value)]


def test_segmentations_of_slicer_need_simpleitk(tmp_path, monkeypatch):
    files = OutputFiles(tmp_path, formats=["seg_nrrd"])
    files.check(SCANS)
    monkeypatch.setattr("monai_fewshot.data.annotations.slicer_segments.has_sitk", False)
    with pytest.raises(OptionalImportError, match=r"pip install monai_fewshot\[slicer\]"):
        files.check(SCANS)


def test_pictures_have_masks_in_png_and_volumes_have_not(tmp_path):
    pictures = [{"name": "a", "image": "a.jpg"}, {"name": "b", "image": "b.PNG"}]
    files = OutputFiles(tmp_path, formats="png")
    assert files.mask("a", "png") == tmp_path / "a_seg.png"
    files.check(pictures)
    for wrong in (OutputFiles(tmp_path), OutputFiles(tmp_path, formats="png", measurements=True)):
        with pytest.raises(ValueError, match="2 of 2 scans are 2D pictures, whose masks are PNG files"):
            wrong.check(pictures)
    with pytest.raises(ValueError, match="outputs name png, which is for 2D pictures"):
        files.check(SCANS)
    Image.new("L", (4, 4)).save(files.mask("a", "png"))
    files.mask("b", "png").write_bytes(files.mask("a", "png").read_bytes()[:40])
    assert _names(files.pending(pictures)) == ["b"]
    assert set(files.masks()) == {"a", "b"}


def test_a_scan_without_its_quality_is_not_done(filled):
    files = replace(filled, flag_below=0.7)
    assert _names(files.pending(SCANS)) == ["a", "b.v1", "c"]
    QUALITY_TABLE.add(files.quality_table, [QUALITY])
    assert _names(files.pending(SCANS)) == ["b.v1", "c"]
    assert "below 70.0 %" in write_index(files).read_text()
    with pytest.raises(ValueError, match=r"flag_below is 70: give a Dice from 0 to 1, such as 0\.7"):
        replace(files, flag_below=70)
