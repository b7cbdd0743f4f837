# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from typing import ClassVar

import itk
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from dicom_files import IDENTIFIERS, made_pixels, ras_affine, write_seg, write_series
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from PIL import Image
from pydicom.uid import RLELossless

from monai_fewshot.data.dicom.series import series_name
from monai_fewshot.data.scans import check_scans as check_scans_module
from monai_fewshot.data.scans.check_scan import CheckScand
from monai_fewshot.data.scans.check_scans import check_output_dir, check_scans
from monai_fewshot.data.scans.scan_folder import load_class_names, load_scans

AFFINE = np.diag([1.5, 1.5, 8.0, 1.0])
SHAPE = (12, 10, 4)


def _image(shape=SHAPE):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _label(shape=SHAPE):
    label = np.zeros(shape, dtype=np.uint8)
    label[:2] = 1
    label[2:4] = 2
    return label


def _with(array, *values):
    array = array.astype(np.float32)
    array.reshape(-1)[: len(values)] = values
    return array


def _save(file, array, affine=AFFINE):
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), file)
    return file


def _scan(folder, image=None, label=None, affine=AFFINE, label_affine=AFFINE):
    """Write one scan beside a sound one, as a Decathlon folder, and list both."""
    for name, scan_image, scan_label in (("sound", None, None), ("bad", image, label)):
        is_bad = name == "bad"
        _save(folder / "images" / f"{name}.nii.gz", _image() if scan_image is None else scan_image, affine)
        scan_label = _label() if scan_label is None else scan_label
        _save(folder / "labels" / f"{name}.nii.gz", scan_label, label_affine if is_bad else affine)
    training = [{"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz"} for name in ("sound", "bad")]
    content = {"labels": {"0": "background", "1": "liver", "2": "spleen"}, "training": training}
    (folder / "dataset.json").write_text(json.dumps(content))
    return load_scans(folder)


def _truncate(file, keep):
    file.write_bytes(file.read_bytes()[:keep])


def _message(scans, classes=None, **options):
    with pytest.raises(ValueError, match="problem") as caught:
        check_scans(scans, classes, **options)
    return str(caught.value)


ROTATED = AFFINE @ np.array([[0.999, 0.0447, 0, 0], [-0.0447, 0.999, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
SHIFTED = AFFINE + np.array([[0, 0, 0, 0.5]] + [[0, 0, 0, 0]] * 3)
RGB = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])

FAULTS = {
    "shape": (
        {"label": _label((12, 10, 5))},
        r"labels/bad\.nii\.gz: has \(12, 10, 5\) voxels, but its image .*images/bad\.nii\.gz \(12, 10, 4\); resample",
    ),
    "shift": (
        {"label_affine": SHIFTED},
        r"labels/bad\.nii\.gz: lies up to 0\.5 mm away from its image .*bad\.nii\.gz, as their affines differ; resamp",
    ),
    "rotation": ({"label_affine": ROTATED}, r"labels/bad\.nii\.gz: lies up to 0\.\d+ mm away"),
    "unknown classes": (
        {"label": _with(_label(), 7, 9, 7)},
        r"labels/bad\.nii\.gz: holds 7, 9; expected 0 and 1, 2\. Correct the label, or the classes",
    ),
    "many unknown classes": (
        {"label": _with(_label(), *range(10, 40))},
        r"labels/bad\.nii\.gz: holds 10, 11, .*, 19, \.\.\. \(30 values\)",
    ),
    "negative": ({"label": _with(_label(), -1)}, r"labels/bad\.nii\.gz: holds -1; expected 0 and 1, 2"),
    "fractions": (
        {"label": _with(_label(), 0.5, 1.25, np.nan)},
        r"labels/bad\.nii\.gz: holds values that are no integers: 0\.5, 1\.25, nan; a label map",
    ),
    "empty label": ({"label": np.zeros(SHAPE, np.uint8)}, r"labels/bad\.nii\.gz: is empty, no voxel is above 0"),
    "one-hot label": (
        {"label": np.stack([_label() == 1, _label() == 2], axis=-1).astype(np.uint8)},
        r"labels/bad\.nii\.gz: has 2 channels of \(12, 10, 4\) voxels; expected 1\..*one-hot label",
    ),
    "NaN": (
        {"image": _with(_image(), np.nan, np.inf, np.nan, -np.inf, np.nan)},
        r"images/bad\.nii\.gz: holds 3 NaN and 2 infinite values among 480 voxels; give them a finite value",
    ),
    "constant": ({"image": np.full(SHAPE, 2.5)}, r"images/bad\.nii\.gz: is constant, every voxel is 2\.5"),
    "4D": (
        {"image": _image((*SHAPE, 6))},
        r"images/bad\.nii\.gz: has 6 channels of \(12, 10, 4\) voxels; expected 1\. In a 4D file the channels lie "
        "along the last axis: save the one time point",
    ),
    "5D": ({"image": _image((*SHAPE, 2, 6))}, r"images/bad\.nii\.gz: has 4 axes beside the channels \(6, 12, 10, 4, 2"),
    "RGB": ({"image": RGB}, r"images/bad\.nii\.gz: stores 3 color channels \(RGB\); expected gray values\. Save one"),
}


@pytest.mark.parametrize(("fault", "pattern"), FAULTS.values(), ids=FAULTS)
def test_fault_names_file_and_remedy(tmp_path, fault, pattern):
    message = _message(_scan(tmp_path, **fault), load_class_names(tmp_path))
    assert message.startswith("1 problem(s) in 1 of 2 scans:\n")
    assert re.search(pattern, message), message
    assert "sound" not in message


@pytest.mark.parametrize(
    ("fault", "pattern"),
    [fault for name, fault in FAULTS.items() if name != "RGB"],
    ids=[name for name in FAULTS if name != "RGB"],
)
def test_fault_stops_a_pipeline(tmp_path, fault, pattern):
    bad, sound = _scan(tmp_path, **fault)
    keys = ["image", "label"]
    pipeline = Compose([LoadImaged(keys), EnsureChannelFirstd(keys), CheckScand("image", classes=(1, 2))])
    assert pipeline(sound)["image"].shape == (1, *SHAPE)
    with pytest.raises(RuntimeError, match="CheckScand") as caught:
        pipeline(bad)
    assert re.search(pattern, str(caught.value.__cause__))


def test_every_problem_is_reported_at_once(tmp_path):
    scans = _scan(tmp_path, image=_with(_image(), np.nan), label=_with(_label(), 7), label_affine=SHIFTED)
    os.remove(tmp_path / "images" / "sound.nii.gz")
    _truncate(tmp_path / "labels" / "sound.nii.gz", 60)
    lines = _message(scans, (1, 2)).splitlines()
    assert lines[0] == "5 problem(s) in 2 of 2 scans:"
    files = [re.search(r"(images|labels)/(bad|sound)\.nii\.gz:", line).group() for line in lines[1:]]
    assert files == [
        "images/bad.nii.gz:",
        "labels/bad.nii.gz:",
        "labels/bad.nii.gz:",
        "images/sound.nii.gz:",
        "labels/sound.nii.gz:",
    ]


def test_missing_file(tmp_path):
    scans = _scan(tmp_path)
    os.remove(tmp_path / "labels" / "bad.nii.gz")
    assert re.search(r"labels/bad\.nii\.gz: is missing; correct its path", _message(scans))


@pytest.mark.parametrize("keep", [0, 50, 400, -30])
def test_truncated_gzip(tmp_path, keep):
    scans = _scan(tmp_path, image=_image((40, 40, 10)), label=_label((40, 40, 10)))
    _truncate(tmp_path / "images" / "bad.nii.gz", keep)
    expected = r"is truncated or damaged: .* Copy or download" if keep else "is empty; copy or download it again"
    assert re.search(rf"images/bad\.nii\.gz: {expected}", _message(scans))


@pytest.mark.parametrize("content", [b"", b"no image at all"])
@pytest.mark.parametrize("name", ["a.nii", "a.mha", "a.nrrd"])
def test_unreadable_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    expected = r"cannot be read \(\w+: .*\): it is damaged" if content else "is empty; copy or export it again"
    assert re.search(rf"{name}: {expected}", _message(load_scans(tmp_path)))


@pytest.mark.parametrize("shape", [(12, 10, 1), (257, 9, 3)])
def test_legal_sizes(tmp_path, shape):
    check_scans(_scan(tmp_path, image=_image(shape), label=_label(shape)), (1, 2))


def test_2d_file_is_a_volume_of_one_slice(tmp_path):
    scans = _scan(tmp_path, image=_image((12, 10)), label=_label((12, 10, 1)))
    check_scans(scans, (1, 2))
    keys = ["image", "label"]
    pipeline = Compose([LoadImaged(keys), EnsureChannelFirstd(keys), CheckScand("image")])
    scan = pipeline(scans[0])
    assert scan["image"].shape == scan["label"].shape == (1, 12, 10, 1)
    np.testing.assert_allclose(scan["image"].affine, AFFINE)
    np.testing.assert_array_equal(scan["image"][0, :, :, 0], _image((12, 10)))


def test_2d_affine_gains_the_slice_axis(tmp_path):
    picture = itk.image_from_array(_image((12, 10)))
    picture.SetSpacing((0.5, 2.0))
    itk.imwrite(picture, str(tmp_path / "a.mha"))
    scan = Compose([LoadImaged("image"), EnsureChannelFirstd("image"), CheckScand()])(load_scans(tmp_path)[0])
    np.testing.assert_allclose(scan["image"].affine, np.diag([-0.5, -2.0, 1.0, 1.0]))


def test_rgb_picture_counts_channels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (12, 10, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    scans = load_scans(tmp_path / "a.png")
    assert "a.png: is a color picture; expected a gray one" in _message(scans)
    check_scans(scans, num_channels=3)


def test_affines_within_tolerance(tmp_path):
    scans = _scan(tmp_path, label_affine=AFFINE + 1e-4 * np.eye(4))
    check_scans(scans)
    assert "lies up to" in _message(scans, affine_tolerance=1e-5)


def test_affine_with_nan_is_found():
    image, label = (MetaTensor(torch.rand(1, *SHAPE).round(), affine=torch.eye(4)) for _ in range(2))
    label.affine[0, 0] = torch.nan
    with pytest.raises(ValueError, match="lies up to nan mm away"):
        CheckScand("image")({"image": image, "label": label})


def test_classes_are_free_where_there_is_no_list(tmp_path):
    scans = _scan(tmp_path, label=_with(_label(), 7))
    check_scans(scans)
    check_scans(scans, {})
    _scan(tmp_path, label=_with(_label(), -3))
    assert "holds -3; expected 0 and positive integers" in _message(scans)


def test_images_without_labels_in_every_format(tmp_path, monkeypatch):
    _save(tmp_path / "a.nii.gz", _image())
    for name in ("b.mha", "c.nrrd"):
        itk.imwrite(itk.image_from_array(_image()), str(tmp_path / name))
    write_series(tmp_path / "d", series_uid="1.1")
    write_series(tmp_path / "e", made_pixels((12, 10, 1)), series_uid="1.2")
    monkeypatch.chdir(tmp_path)
    scans = load_scans(".")
    assert [scan["name"] for scan in scans] == sorted([*"abc", series_name("1.1"), series_name("1.2")])
    check_scans(scans)
    check_scans([{**scan, "image": os.path.relpath(scan["image"])} for scan in scans[:3]])
    check_scans([{"name": "d", "image": "d"}, {"name": "e", "image": "e/IM0001.dcm"}])


def test_itk_reads_one_file_at_a_time(tmp_path, monkeypatch):
    class LoadAlone:
        inside: ClassVar[list[str]] = []

        def __call__(self, path):
            self.inside.append(path.name)
            time.sleep(0.02)
            if len(self.inside) > 1:
                raise RuntimeError(f"{self.inside} at once")
            self.inside.remove(path.name)
            return torch.rand(1, 2, 2, 2)

    monkeypatch.setattr(check_scans_module, "VolumeLoader", LoadAlone)
    for name in "abcdef":
        (tmp_path / f"{name}.mha").touch()
    check_scans(load_scans(tmp_path), num_workers=3)


def test_series_are_named_by_their_hash(tmp_path):
    folder = tmp_path / "Quxworth_Zebedee"
    write_series(folder, series_uid="1.1")
    write_series(folder, series_uid="1.2", offsets=[0, 3, 6, 12, 15, 18], file_name="A{}")
    files = write_series(folder, series_uid="1.3", file_name="B{}", transfer_syntax=RLELossless)
    ds = pydicom.dcmread(files[3])
    del ds.PixelData
    ds.save_as(files[3])
    scans = load_scans(tmp_path)
    label = _save(tmp_path / "label.nii.gz", _label((12, 10, 6)), ras_affine())
    message = _message(
        [{**scan, "label": str(label)} if scan["name"] == series_name("1.1") else scan for scan in scans]
    )
    assert "2 problem(s) in 2 of 3 scans" in message
    assert f"{series_name('1.2')}: 1 slice(s) are missing: gaps of 6 mm after slice 3" in message
    assert f"{series_name('1.3')}: slice 4 of 6 holds no pixels" in message
    assert not [word for word in IDENTIFIERS if word in message]


def test_label_beside_a_series(tmp_path):
    write_series(tmp_path / "s", series_uid="1.1")
    label = _save(tmp_path / "label.nii.gz", _label((12, 10, 5)), ras_affine())
    (scan,) = load_scans(tmp_path / "s")
    assert re.search(
        rf"label\.nii\.gz: has \(12, 10, 5\) voxels, but its image {series_name('1.1')} \(12, 10, 6\)",
        _message([{**scan, "label": str(label)}]),
    )


def test_segmentation_as_label(tmp_path):
    files = write_series(tmp_path / "s", series_uid="1.1")
    seg = write_seg(tmp_path / "seg.dcm", files, _label((12, 10, 6)), ["liver", "spleen"])
    (scan,) = load_scans(tmp_path / "s")
    check_scans([{**scan, "label": str(seg)}], (1, 2))
    assert re.search(r"seg\.dcm: holds 2; expected 0 and 1\.", _message([{**scan, "label": str(seg)}], [1]))
    other = write_seg(tmp_path / "x.dcm", write_series(tmp_path / "t"), _label((12, 10, 6)), ["liver", "spleen"])
    assert re.search(r"x\.dcm: is drawn in another frame of reference", _message([{**scan, "label": str(other)}]))


def test_transform_without_meta_names_the_key():
    scan = {"support_image": torch.rand(1, 4, 4, 2), "support_label": torch.full((1, 4, 4, 2), 3)}
    check = CheckScand("support_image", "support_label", classes=[1])
    with pytest.raises(ValueError, match=r"^support_label: holds 3; expected 0 and 1\."):
        check(scan)


def test_transform_leaves_the_scan_as_it_is():
    scan = {"image": torch.rand(1, 4, 4, 2), "name": "a"}
    checked = CheckScand("image")(scan)
    assert checked["image"] is scan["image"]
    assert checked.keys() == scan.keys()


def test_absent_image():
    with pytest.raises(KeyError, match="image"):
        CheckScand("image")({"label": torch.ones(1, 4, 4, 2)})
    assert CheckScand("image", allow_missing_keys=True)({}) == {}


def test_output_dir_is_created(tmp_path):
    assert check_output_dir(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("path", ["file", "file/inner"])
def test_file_in_place_of_output_dir(tmp_path, path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=rf"output folder .*{path} cannot be written \(.*\): .*choose another folder"):
        check_output_dir(tmp_path / path)


def test_output_dir_without_permission(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OSError, match=r"cannot be written \(Permission denied\): free it, change its permissions"):
        check_output_dir(tmp_path)


@pytest.mark.parametrize("name", ["chaos_t2", "mscmr_bssfp", "acdc"])
def test_real_sets_are_sound(data_dir, name):
    check_scans(load_scans(data_dir / name, require_labels=True), load_class_names(data_dir / name))
