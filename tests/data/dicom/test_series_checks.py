# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from dicom_files import AXIAL, CORONAL, IDENTIFIERS, SAGITTAL, made_pixels, oblique, write_report, write_series

from monai_fewshot.data.dicom.series import find_series
from monai_fewshot.data.dicom.series_checks import series_problems


def _problems(folder):
    return [problem for series in find_series(folder).series for problem in series_problems(series)]


SOUND = {
    "plain": {},
    "oblique": {"directions": oblique(), "order": [3, 1, 0, 5, 2, 4]},
    "left-handed": {"directions": AXIAL @ np.diag([1.0, 1, -1])},
    "tilted gantry": {"tilt": (0.0, 0.9, 0.0)},
    "noise of positions": {"offsets": [0, 3.02, 5.99, 9.01, 12, 14.98]},
    "one slice": {"pixels": made_pixels((12, 10, 1))},
    "two slices": {"pixels": made_pixels((12, 10, 2))},
    "fine": {"spacing": (0.1, 0.1, 0.05)},
}

FAULTS = {
    "one missing": (
        {"offsets": [0, 3, 6, 12, 15, 18]},
        r"1 slice\(s\) are missing: gaps of 6 mm after slice 3, of 3 mm else; export again\.",
    ),
    "several missing": (
        {"offsets": [0, 9, 12, 15, 18, 24]},
        r"3 slice\(s\) are missing: gaps of 9 mm after slice 1, 6 mm after slice 5, of 3 mm else",
    ),
    "uneven": (
        {"offsets": [0, 3, 6, 10, 13, 16]},
        r"gaps between slices are uneven: 4 mm after slice 3, 3 mm in the med",
    ),
    "doubled": (
        {"offsets": [0, 3, 6, 6, 9, 12]},
        r"1 of 5 positions hold more than one image, up to 2: slices are doub",
    ),
    "shifted": (
        {"ImagePositionPatient": [[-50 + 2 * (k == 3), -40, 100 + 3 * k] for k in range(6)]},
        r"slices are shifted in plane by up to 2\.5 pixels",
    ),
    "localizer": (
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        "6 of 6 images are localizers, no volume. Choose",
    ),
    "no position": (
        {"ImagePositionPatient": None},
        r"6 of 6 images do not tell their position \(ImagePositionPatient\)",
    ),
    "no orientation": ({"ImageOrientationPatient": None}, r"6 of 6 images do not tell their orientation"),
    "no spacing": ({"PixelSpacing": None}, r"6 of 6 images do not tell their spacing \(PixelSpacing\)"),
    "bad orientation": ({"ImageOrientationPatient": [[1, 0, 0, 1, 0, 0]] * 6}, "no unit vectors at right angles"),
}


@pytest.mark.parametrize("settings", SOUND.values(), ids=SOUND)
def test_sound_series(tmp_path, settings):
    write_series(tmp_path, **settings)
    assert _problems(tmp_path) == []


@pytest.mark.parametrize(("settings", "pattern"), FAULTS.values(), ids=FAULTS)
def test_fault(tmp_path, settings, pattern):
    write_series(tmp_path / "Quxworth", **settings)
    (problem,) = _problems(tmp_path)
    assert re.search(pattern, problem), problem
    assert not [word for word in IDENTIFIERS if word in problem]


def test_missing_file(tmp_path):
    write_series(tmp_path)[2].unlink()
    (problem,) = _problems(tmp_path)
    assert problem.startswith("1 slice(s) are missing: gaps of 6 mm after slice 2, of 3 mm else")


def test_several_problems_at_once(tmp_path):
    write_series(tmp_path, made_pixels((12, 10, 3)), series_uid="1.2", file_name="A{}")
    write_series(
        tmp_path,
        made_pixels((9, 10, 2)),
        series_uid="1.2",
        file_name="B{}",
        origin=(-50, -40, 112),
        spacing=(1, 0.7, 3),
    )
    problems = _problems(tmp_path)
    assert problems[0].startswith("images differ in size: 9 x 10 voxels (2 images), 12 x 10 voxels (3 images); give")
    assert problems[1].startswith("images differ in pixel spacing: 0.8 x 0.7 mm (3 images), 1 x 0.7 mm (2 images)")
    assert problems[2].startswith("1 slice(s) are missing: gaps of 6 mm after slice 3")
    assert len(problems) == 3


def test_three_planes(tmp_path):
    for number, directions in enumerate((AXIAL, CORONAL, SAGITTAL)):
        write_series(
            tmp_path, made_pixels((12, 10, 3 if number else 5)), directions=directions, series_uid="1.2",
            file_name=f"{number}_{{}}.dcm",
        )  # fmt: skip
    (problem,) = _problems(tmp_path)
    assert re.match(
        r"images differ in orientation, \d+ of 11 images from the rest, as in a localizer of three", problem
    )


def test_echoes_that_cannot_be_parted(tmp_path):
    for name in "AB":
        write_series(tmp_path, series_uid="1.2", file_name=f"{name}{{}}.dcm")
    (problem,) = _problems(tmp_path)
    assert problem.startswith(
        "6 of 6 positions hold more than one image, up to 2: slices are doubled, or several echoes"
    )


def test_report(tmp_path):
    write_report(tmp_path)
    (problem,) = _problems(tmp_path)
    assert problem.startswith(
        "1 of 1 images hold no image (modality SR), as reports and contours do; choose the series"
    )


def test_color(tmp_path):
    write_series(tmp_path, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    assert _problems(tmp_path) == ["6 of 6 images are in color; expected gray values. Choose another series."]


def test_truncated_files(tmp_path):
    files = write_series(tmp_path, made_pixels((64, 64, 6)))
    for file in files[1:3]:
        file.write_bytes(file.read_bytes()[:-3000])
    assert _problems(tmp_path) == ["2 of 6 files are truncated, shorter than their pixels; copy them again."]


OTHERS = {
    "doses": ({"modality": "RTDOSE"}, "doses of a radiotherapy, no scan"),
    "captures": ({"modality": "OT"}, "secondary captures, pictures that a computer made of a scan"),
    "screen": ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen shots, no scan"),
    "mosaics": (
        {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]},
        "mosaics, all slices of a volume in one picture; convert them to NIfTI, e.g. with dcm2niix",
    ),
    "frames": ({"NumberOfFrames": 2}, "files of several frames that do not tell where each lies"),
    "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "in color; expected gray values"),
}


@pytest.mark.parametrize(("settings", "kind"), OTHERS.values(), ids=OTHERS)
def test_images_that_are_no_slices(settings, kind, tmp_path):
    write_series(tmp_path, **settings)
    (series,) = find_series(tmp_path).series
    assert not series.is_volume
    assert series_problems(series) == [f"6 of 6 images are {kind}. Choose another series."]


def test_instances_of_one_uid_at_different_positions_are_a_volume(tmp_path):
    write_series(tmp_path, SOPInstanceUID="1.2.3")
    assert _problems(tmp_path) == []


@pytest.mark.parametrize("count", [1, 6])
def test_copies_of_files(tmp_path, count):
    """Of one slice, or of a whole series in another folder, which is then no second volume."""
    (tmp_path / "copy").mkdir()
    for file in write_series(tmp_path / "s")[:count]:
        shutil.copy(file, tmp_path / "copy")
    assert _problems(tmp_path) == [
        f"{count} of {6 + count} images are copies of others, with the same SOPInstanceUID; remove the copies."
    ]
