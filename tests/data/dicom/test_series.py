# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import os
import random
import shutil

import numpy as np
import pytest
from dicom_files import (
    AXIAL,
    SAGITTAL,
    made_pixels,
    oblique,
    ras_affine,
    write_report,
    write_rtstruct,
    write_seg,
    write_series,
)

from monai_fewshot.data.dicom.series import find_series, read_series, select_series, series_name


def _tree(folder):
    """A study of four series in the folders of a scanner, and one more in a folder of its own."""
    study = folder / "Quxworth" / "2024-05-06"
    return {
        "t2": write_series(study / "t2", description="t2_haste_TRA", series_uid="1.2.1"),
        "t1": write_series(study / "t1", description="T1 vibe (opp)", series_uid="1.2.2", order=[2, 0, 1, 4, 3, 5]),
        "ct": write_series(folder / "Other" / "a", modality="CT", description="Abdomen 3.0 B30f", series_uid="1.3.1"),
        "scout": write_series(
            study / "t2",
            made_pixels((12, 10, 2)),
            description="scout",
            file_name="S{}.IMA",
            series_uid="1.2.3",
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ),
        "report": [write_report(study, SeriesInstanceUID="1.2.4")],
    }


def test_series_of_a_tree(tmp_path):
    written = _tree(tmp_path)
    (tmp_path / "Other" / "notes.txt").write_text("x")
    (tmp_path / "Other" / "a" / ".hidden.dcm").write_bytes(b"x")
    tree = find_series(tmp_path)
    assert tree.unreadable == ()
    found = {series.uid: series for series in tree.series}
    assert list(found) == sorted(found) == ["1.2.1", "1.2.2", "1.2.3", "1.2.4", "1.3.1"]
    for uid, name in {"1.2.1": "t2", "1.2.2": "t1", "1.3.1": "ct", "1.2.3": "scout", "1.2.4": "report"}.items():
        assert found[uid].files == tuple(map(str, written[name]))
    assert [series.modality for series in tree.series] == ["MR", "MR", "MR", "SR", "CT"]
    assert [series.is_volume for series in tree.series] == [True, True, False, False, True]
    assert found["1.2.1"].shape == (12, 10, 6)
    np.testing.assert_allclose(found["1.2.1"].affine, ras_affine(), atol=1e-9)


def test_series_of_several_folders_with_any_file_names(tmp_path):
    files = write_series(tmp_path / "a", directions=oblique(), file_name="I{}", series_uid="1.2")
    write_series(tmp_path / "a", file_name="J{}", series_uid="1.3")
    (tmp_path / "b").mkdir()
    moved = [shutil.move(file, tmp_path / "b" / f"{9 - number}x") for number, file in enumerate(files[:3])]
    (series, other) = find_series(tmp_path).series
    assert series.files == tuple(map(str, [*moved, *files[3:]]))
    assert len(other.slices) == 6


def test_slices_follow_the_normal(tmp_path):
    """As ITK sorts them: columns, rows and slices are right-handed."""
    down = AXIAL @ np.diag([1.0, 1, -1])
    files = write_series(tmp_path, directions=down)
    (series,) = read_series(random.Random(0).sample(files, 6)).series
    assert series.files == tuple(map(str, files[::-1]))
    np.testing.assert_allclose(series.affine, ras_affine(origin=(-50, -40, 85)), atol=1e-9)


def test_names_tell_nothing_of_the_patient(tmp_path):
    write_series(tmp_path, series_uid="1.2.840.1")
    (series,) = find_series(tmp_path).series
    assert series.name == series_name("1.2.840.1") == "series_" + hashlib.sha256(b"1.2.840.1").hexdigest()[:12]


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        ({}, ["1.2.1", "1.2.2", "1.2.3", "1.2.4", "1.3.1"]),
        ({"modality": "ct"}, ["1.3.1"]),
        ({"modality": ["SR", "CT"]}, ["1.2.4", "1.3.1"]),
        ({"description": "TRA"}, ["1.2.1"]),
        ({"description": "t?_*"}, ["1.2.1"]),
        ({"description": "(opp)"}, ["1.2.2"]),
        ({"description": ["haste", "b30F"]}, ["1.2.1", "1.3.1"]),
        ({"description": "t1", "modality": "CT"}, []),
        ({"series_uid": "1.2.2"}, ["1.2.2"]),
        ({"series_uid": ["1.2.3", series_name("1.3.1")]}, ["1.2.3", "1.3.1"]),
        ({"series_uid": "1.2"}, []),
    ],
)
def test_choice(tmp_path, choice, chosen):
    _tree(tmp_path)
    assert [series.uid for series in select_series(find_series(tmp_path).series, **choice)] == chosen


def test_annotations_and_directories_are_no_volumes(tmp_path):
    files = write_series(tmp_path / "s")
    labels = np.zeros((12, 10, 6), int)
    labels[2:5, 3:6, 1:4] = 1
    write_seg(tmp_path / "seg.dcm", files, labels, ["liver"])
    write_rtstruct(tmp_path / "rt.dcm", files, {"liver": [np.zeros((3, 3))]})
    series = find_series(tmp_path).series
    assert sorted((item.modality, item.is_volume) for item in series) == [
        ("MR", True),
        ("RTSTRUCT", False),
        ("SEG", False),
    ]


def test_files_that_cannot_be_read(tmp_path):
    files = write_series(tmp_path / "s")
    (tmp_path / "a.dcm").write_bytes(b"")
    (tmp_path / "b.ima").write_bytes(b"0\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03" + bytes(range(256)) * 4)
    (tmp_path / "c").write_bytes(files[0].read_bytes()[:200])
    tree = find_series(tmp_path)
    assert [file.name for file in tree.unreadable] == ["a.dcm", "b.ima", "c"]
    assert [len(series.slices) for series in tree.series] == [6]


def test_a_file_that_may_not_be_opened_does_not_stop_a_tree(tmp_path, monkeypatch):
    """Made so by hand, as the superuser may open any file."""
    write_series(tmp_path)
    (tmp_path / "locked").write_bytes(b"x" * 200)

    def refuse(file, *args, **kwargs):
        if os.fspath(file).endswith("locked"):
            raise PermissionError(13, "Permission denied", os.fspath(file))
        return opened(file, *args, **kwargs)

    opened = open
    monkeypatch.setattr("builtins.open", refuse)
    tree = find_series(tmp_path)
    assert ([file.name for file in tree.unreadable], len(tree.series)) == (["locked"], 1)


def _twice(folder, first, second, series_uid="1.2", **settings):
    """Two volumes in one series."""
    one = write_series(folder / "x", series_uid=series_uid, file_name="A{}.dcm", **first, **settings)
    two = write_series(folder / "x", series_uid=series_uid, file_name="B{}.dcm", **second, **settings)
    return tuple(map(str, one)), tuple(map(str, two))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"EchoTime": 4.6}, {"EchoTime": 12.3}),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "IN"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "OPP"]}),
        ({"TemporalPositionIdentifier": 2}, {"TemporalPositionIdentifier": 10}),
        ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}),
    ],
    ids=["echoes", "phases", "times", "acquisitions"],
)
def test_volumes_of_one_series(tmp_path, first, second):
    expected = _twice(tmp_path, first, second)
    parts = find_series(tmp_path).series
    assert [part.files for part in parts] == list(expected)
    assert [part.name for part in parts] == [f"{series_name('1.2')}_1", f"{series_name('1.2')}_2"]
    assert select_series(parts, series_uid="1.2") == list(parts)
    assert select_series(parts, series_uid=parts[1].name) == [parts[1]]


def test_one_series_in_two_folders_as_chaos_has_it(tmp_path):
    one, two = (write_series(tmp_path / name, series_uid="1.2") for name in ("InPhase", "OutPhase"))
    assert [part.files for part in find_series(tmp_path).series] == [tuple(map(str, one)), tuple(map(str, two))]


def test_doubled_slices_stay_in_one_volume(tmp_path):
    _twice(tmp_path, {"EchoTime": 1.0}, {"EchoTime": 2.0, "offsets": [0, 3, 6, 9, 12, 12]})
    (series,) = find_series(tmp_path).series
    assert len(series.slices) == 12


@pytest.mark.parametrize(
    "values",
    [
        ["EchoTime", [1, 1, 2, 2], "FlipAngle", [5, 9, 5, 9]],
        ["DiffusionBValue", [0, 800, 800, 800], "SequenceName", ["b0", "x", "y", "z"]],
        ["TemporalPositionIdentifier", [1, 1, 2, 2], "InversionTime", [3, 4, 3, 4]],
    ],
    ids=["echoes and angles", "directions", "times and inversions"],
)
def test_volumes_that_two_attributes_part(values, tmp_path):
    one, ones, two, twos = values
    expected = [
        tuple(map(str, write_series(tmp_path, series_uid="1.2", file_name=f"{n}_{{}}.dcm", **{one: a, two: b})))
        for n, (a, b) in enumerate(zip(ones, twos, strict=True))
    ]
    assert [part.files for part in find_series(tmp_path).series] == expected


def test_an_attribute_of_single_slices_makes_no_volumes(tmp_path):
    """A time that differs from image to image."""
    for name in "AB":
        write_series(
            tmp_path, series_uid="1.2", file_name=f"{name}{{}}", TriggerTime=lambda k, n=name: 9 * k + (n == "B")
        )
    (series,) = find_series(tmp_path).series
    assert len(series.slices) == 12


def test_a_localizer_within_a_series_stands_beside_its_volume(tmp_path):
    files = write_series(tmp_path / "s", series_uid="1.2")
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "directions": SAGITTAL}
    write_series(tmp_path / "s", made_pixels((12, 10, 1)), series_uid="1.2", file_name="S{}", **scout)
    volume, other = find_series(tmp_path).series
    assert (volume.files, volume.is_volume, other.is_volume) == (tuple(map(str, files)), True, False)


def test_no_file():
    assert read_series([]).series == ()
