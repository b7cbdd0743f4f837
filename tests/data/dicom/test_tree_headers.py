# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import stat

import pydicom
import pytest
from dicom_files import IDENTIFIERS, made_pixels, write_enhanced, write_report, write_series

from monai_fewshot.data.dicom import header, tree_headers
from monai_fewshot.data.dicom.series import find_series, read_series


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small tree of which all headers are cached, in a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / ".cache"))
    monkeypatch.setattr(tree_headers, "CACHED_FROM", 3)
    folder = tmp_path / "archive"
    write_series(folder / "a" / "Quxworth", series_uid="1.2.1")
    write_series(folder / "b", made_pixels((12, 10, 4)), series_uid="1.2.2", file_name="IM{}", modality="CT")
    write_report(folder / "b", SeriesInstanceUID="1.2.4")
    (folder / "b" / "notes").write_text("no DICOM")
    return folder


@pytest.fixture
def opened(monkeypatch):
    """Files whose headers are read."""
    files = []

    def read(file):
        files.append(os.path.basename(file))
        return header.slices_of_file(file)

    monkeypatch.setattr(tree_headers, "slices_of_file", read)
    return files


def test_a_tree_is_listed_again_without_opening_a_file(archive, opened, monkeypatch):
    first = find_series(archive)
    assert len(opened) == 11
    monkeypatch.setattr(tree_headers, "is_dicom", None)
    assert find_series(archive) == first
    assert len(opened) == 11
    everything = (file for file in archive.rglob("*") if file.is_file() and file.name != "notes")
    assert read_series(sorted(everything)).series == first.series


def test_several_images_of_a_file_come_back(archive):
    frames = [lambda index: {"MREchoSequence": {"EffectiveEchoTime": 4.6}}] * 2
    (archive / "c").mkdir()
    write_enhanced(archive / "c" / "many.dcm", [made_pixels(), made_pixels(seed=1)], frames)
    first = find_series(archive)
    assert max(slice_.frame or 0 for series in first.series for slice_ in series.slices) > 0
    assert find_series(archive) == first


def test_what_is_new_or_has_changed_is_read_and_what_has_gone_is_forgotten(archive, opened):
    find_series(archive)
    opened.clear()
    (new,) = write_series(archive / "c", made_pixels((12, 10, 1)), series_uid="1.2.5", file_name="new{}.dcm")
    changed, touched, gone = sorted((archive / "a" / "Quxworth").iterdir())[:3]
    ds = pydicom.dcmread(changed)
    ds.SeriesInstanceUID = "1.2.9"
    ds.save_as(changed)
    os.utime(touched, ns=(0, touched.stat().st_mtime_ns + 1))
    gone.unlink()
    found = {series.uid: len(series.slices) for series in find_series(archive).series}
    assert sorted(opened) == sorted([new.name, changed.name, touched.name])
    assert found == {"1.2.1": 4, "1.2.2": 4, "1.2.4": 1, "1.2.5": 1, "1.2.9": 1}
    opened.clear()
    assert {series.uid: len(series.slices) for series in find_series(archive).series} == found
    assert opened == []


def test_a_file_that_cannot_be_read_is_tried_again(archive, opened):
    broken = archive / "b" / "broken.dcm"
    broken.write_bytes(b"x" * 200)
    assert find_series(archive).unreadable == (broken,)
    opened.clear()
    assert find_series(archive).unreadable == (broken,)
    assert opened == ["broken.dcm"]


def test_an_interrupted_reading_goes_on(archive, opened, monkeypatch):
    def interrupted(file):
        if len(opened) == 5:
            raise KeyboardInterrupt
        opened.append(os.path.basename(file))
        return header.slices_of_file(file)

    with monkeypatch.context() as patch:
        patch.setattr(tree_headers, "slices_of_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            find_series(archive, num_workers=1)
    first = list(opened)
    assert len(first) == 5
    assert len(find_series(archive).series) == 3
    assert sorted(opened) == sorted({*opened})
    assert len(opened) == 11


@pytest.mark.parametrize("change", ["tags", "pydicom", "damaged"])
def test_headers_that_others_have_cached_are_read_anew(archive, opened, monkeypatch, change, tmp_path):
    first = find_series(archive)
    opened.clear()
    if change == "tags":
        monkeypatch.setattr(header, "TAGS", (*header.TAGS, "PatientPosition"))
    elif change == "pydicom":
        monkeypatch.setattr(tree_headers.pydicom, "__version__", "99.0")
    else:
        (file,) = (tmp_path / "home").rglob("*.json.gz")
        file.write_bytes(file.read_bytes()[:300])
    assert find_series(archive) == first
    assert len(opened) == 11


def test_the_cache_is_for_the_user_alone_and_not_named_after_the_patient(archive, tmp_path):
    find_series(archive / "a" / "Quxworth")
    (file,) = (tmp_path / "home").rglob("*.json.gz")
    assert not stat.S_IMODE(file.parent.stat().st_mode) & 0o077
    assert not any(text in str(file.relative_to(tmp_path)) for text in IDENTIFIERS)


def test_a_cache_folder_that_cannot_be_written_to_is_told_and_does_no_harm(archive, tmp_path, caplog):
    (tmp_path / "home").write_text("no folder")
    assert len(find_series(archive).series) == 3
    assert "DICOM headers cannot be cached, and will be read again next time" in caplog.text


def test_small_folders_are_not_cached(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(tree_headers, "CACHED_FROM", 13)
    find_series(archive)
    assert not (tmp_path / "home").exists()
