# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import pickle
import traceback
import warnings

import nibabel
import numpy as np
import pytest
import torch
from dicom_files import IDENTIFIERS, made_pixels, oblique, ras_affine, write_rtstruct, write_seg, write_series
from monai.data import Dataset
from monai.transforms import Compose, LoadImaged

from monai_fewshot.data import (
    ScanEpisodes,
    find_series,
    fingerprint_scans,
    load_scans,
    pending_scans,
    read_scans,
    support_scans,
)
from monai_fewshot.data.dicom.series import series_name
from monai_fewshot.data.scans.check_scans import check_scans
from monai_fewshot.data.scans.load_scan import LoadScand


def _labels():
    labels = np.zeros((12, 10, 6), np.uint8)
    labels[2:5, 3:7, 1:4] = 1
    labels[6:9, 1:4, 3:5] = 2
    return labels


def test_files_load_as_monai_loads_them(tmp_path):
    scan = {"name": "a"}
    for key, values in (("image", made_pixels()), ("label", _labels())):
        scan[key] = str(tmp_path / f"{key}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), ras_affine(oblique())), scan[key])
    expected = LoadImaged(["image", "label"], image_only=True, ensure_channel_first=True)(scan)
    loaded = LoadScand()(scan)
    assert loaded["name"] == "a"
    for key in ("image", "label"):
        assert torch.equal(loaded[key].as_tensor(), expected[key].as_tensor())
        assert torch.equal(loaded[key].affine, expected[key].affine)
        assert loaded[key].dtype == expected[key].dtype
        assert loaded[key].meta["filename_or_obj"] == expected[key].meta["filename_or_obj"] == scan[key]
    assert "label" not in LoadScand()({"image": scan["image"]})


def test_series_with_annotation(tmp_path):
    files = write_series(tmp_path / "s", directions=oblique(), order=[4, 2, 0, 1, 3, 5], series_uid="1.1")
    seg = write_seg(tmp_path / "seg.dcm", files, _labels(), ["liver", "kidney"])
    scan = support_scans(tmp_path / "s", seg)[0]
    loaded = LoadScand()(scan)
    np.testing.assert_array_equal(loaded["image"][0].numpy(), made_pixels())
    np.testing.assert_array_equal(loaded["label"][0].numpy(), _labels())
    assert torch.equal(loaded["image"].affine, loaded["label"].affine)
    assert loaded["image"].meta["filename_or_obj"] == series_name("1.1")
    chosen = LoadScand(class_names=["kidney"])(scan)
    np.testing.assert_array_equal(chosen["label"][0].numpy(), _labels() == 2)
    check_scans([scan], (1, 2))


def test_folder_of_a_series_serves_too(tmp_path):
    write_series(tmp_path / "s", series_uid="1.1")
    loaded = LoadScand()({"image": str(tmp_path / "s")})
    np.testing.assert_array_equal(loaded["image"][0].numpy(), made_pixels())


def test_two_series_in_a_folder_are_told(tmp_path):
    write_series(tmp_path / "s", series_uid="1.1")
    write_series(tmp_path / "s", series_uid="1.2", file_name="B{}")
    with pytest.raises(ValueError, match=r"there are 2 series in 1 path\(s\); choose one"):
        LoadScand()({"image": str(tmp_path / "s")})


def test_faults_of_a_label_name_its_file(tmp_path):
    files = write_series(tmp_path / "s")
    square = np.array([[0, 0, 0], [3, 0, 0], [3, 3, 0.0]])
    path = write_rtstruct(tmp_path / "rt.dcm", files, {"liver": [square + 500]})
    with pytest.raises(ValueError, match=r"rt\.dcm: marks no voxel of its image: liver and the image overlap nowhere"):
        LoadScand()(support_scans(tmp_path / "s", path)[0])


def test_absent_image(tmp_path):
    with pytest.raises(KeyError, match="image"):
        LoadScand()({"name": "a"})
    assert LoadScand(allow_missing_keys=True)({"name": "a"}) == {"name": "a"}


def test_nothing_of_the_patient_leaves_the_files(tmp_path, caplog, capfd):
    """From a study to episodes: folders and files bear the patient's name, headers all that tells who it is."""
    study = tmp_path / "Quxworth^Zebedee" / "PID-7741-QZ 19330217"
    files = write_series(study / "ACC55990", file_name="Quxworth {}.dcm", description="Zebedee t2")
    write_series(study / "two", made_pixels((12, 10, 1)), file_name="Zebedee{}", description="Zebedee one")
    write_series(study / "three", offsets=[0, 3, 6, 12, 15, 18], description="Quxworth gap")
    seg = write_seg(tmp_path / "annotation.dcm", files, _labels(), ["liver", "kidney"])
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scans = load_scans(tmp_path / "Quxworth^Zebedee", modality="MR")
        (support,) = support_scans(study / "ACC55990", seg)
        with pytest.raises(ValueError, match=r"1 slice\(s\) are missing") as refused:
            check_scans([support, *scans])
        sound = [scan for scan in scans if scan["name"] not in str(refused.value)]
        episodes = ScanEpisodes(pending_scans(sound, tmp_path), [support], LoadScand())
        loaded = [episodes[number] for number in range(len(episodes))]
    assert len(loaded) == 2
    kept = [{key: (value, getattr(value, "meta", 0)) for key, value in episode.items()} for episode in loaded]
    told = "\n".join(
        [
            str(refused.value),
            caplog.text.replace(str(tmp_path / "Quxworth^Zebedee"), ""),
            *capfd.readouterr(),
            *(str(warning.message) for warning in caught),
            str([scan["name"] for scan in scans]),
            str(kept),
            fingerprint_scans(scans),
        ]
    )
    assert not [word for word in IDENTIFIERS if word in told]
    assert not [word for word in IDENTIFIERS if word.encode() in pickle.dumps(loaded[0]["image"])]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [("gone", "1 files cannot be read; copy them again."), ("short", "slice 3 of 6 cannot be decoded")],
)
def test_a_failure_within_a_pipeline_tells_nothing_of_the_patient(tmp_path, caplog, capfd, harm, reason):
    """MONAI logs the items of a dictionary at which a transform fails, Python prints what has caused an error."""
    files = write_series(tmp_path / "Quxworth^Zebedee", file_name="Quxworth{}", description="Zebedee", slope=1.0)
    scans = load_scans(tmp_path)
    if harm == "gone":
        files[2].unlink()
    else:
        files[2].write_bytes(files[2].read_bytes()[:-100])
    with caplog.at_level(logging.DEBUG), pytest.raises(ValueError, match=scans[0]["name"]) as caught:
        list(read_scans(Dataset(scans, Compose([LoadScand()])), num_workers=1))
    told = "".join(traceback.format_exception(caught.value))
    assert reason in told
    output = told + caplog.text + "".join(capfd.readouterr()) + repr(scans) + repr(find_series(tmp_path))
    assert not [word for word in IDENTIFIERS if word in output]
