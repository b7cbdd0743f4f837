# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Data sets in the layouts of the Decathlon and of nnU-Net, and plain folders."""

from __future__ import annotations

import json
import re
import tarfile

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from monai_fewshot.apps.prepare.datasets.decathlon import modality_of, prepare_decathlon
from monai_fewshot.apps.prepare.datasets.nnunet import nnunet_class_names, prepare_nnunet
from monai_fewshot.apps.prepare.datasets.plain_folder import prepare_folder
from monai_fewshot.apps.prepare.datasets.volume_sets import choose_channel
from monai_fewshot.data.scans.folds import load_folds
from monai_fewshot.data.scans.scan_folder import load_class_names, load_scans

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [9, -4, 170], degrees=True).as_matrix() * [1.4, 1.4, -4]
OBLIQUE[:3, 3] = 30, -20, 7
SIZE = (14, 12, 6)
CHANNELS = ("FLAIR", "T1w", "T2w")
NUMBERS = {"workers": 0, "num_folds": 2}
NAMES = ("hip_001", "hip_004", "hip_009")


def volume(seed, channels=1):
    values = np.random.default_rng(seed).integers(-500, 900, (*SIZE, channels)).astype(np.int16)
    return values[..., 0] if channels == 1 else values


def label(seed, highest=2):
    values = np.zeros(SIZE, np.uint8)
    values[2:6, 3:8, 1:4], values[7:9, 2 + seed % 3 : 7, 2:5] = 1, highest
    return values


def write(path, array, affine=OBLIQUE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.fixture
def decathlon(tmp_path):
    def make(channels=("CT",), names=NAMES, **content):
        folder = tmp_path / "Task04_Hippocampus"
        for seed, name in enumerate(names):
            write(folder / "imagesTr" / f"{name}.nii.gz", volume(seed, len(channels)))
            write(folder / "labelsTr" / f"{name}.nii.gz", label(seed))
            (folder / "imagesTr" / f"._{name}.nii.gz").write_bytes(b"clutter")
        entries = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
        described = {"name": "Hippocampus", "licence": "CC-BY-SA 4.0", "training": entries, "test": ["./imagesTs/x"]}
        described |= {"modality": {str(n): name for n, name in enumerate(channels)}, "numTraining": len(names)}
        described |= {"labels": {"0": "background", "1": "Anterior", "2": "Posterior"}, **content}
        (folder / "dataset.json").write_text(json.dumps(described))
        return folder

    return make


@pytest.fixture
def nnunet(tmp_path):
    folder = tmp_path / "Dataset007_Pancreas"
    for seed, name in enumerate(NAMES):
        for channel in range(2):
            write(folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz", volume(10 * channel + seed))
        write(folder / "labelsTr" / f"{name}.nii.gz", label(seed))
    content = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "pancreas": 1, "tumor": 2}}
    (folder / "dataset.json").write_text(json.dumps({**content, "numTraining": 3, "file_ending": ".nii.gz"}))
    return folder


def assert_in_the_same_place(path, array, affine=OBLIQUE):
    """Compare a prepared file, as SimpleITK reads it, with voxels at their places in space."""
    image = sitk.ReadImage(path)
    for index in np.random.default_rng(0).integers(0, SIZE, (50, 3)):
        point = (affine @ [*index, 1])[:3] * [-1, -1, 1]
        assert image.TransformPhysicalPointToIndex(point.tolist()) == tuple(index)
        assert image[tuple(map(int, index))] == pytest.approx(array[tuple(index)], abs=1e-3)
    assert image.GetSize() == array.shape


def test_decathlon_of_ct_is_windowed_in_place(decathlon, tmp_path):
    folder = prepare_decathlon(decathlon(), tmp_path / "out", window=(-100, 300), values=(0, 200), **NUMBERS)
    scans = load_scans(folder, require_labels=True)
    assert [scan["name"] for scan in scans] == list(NAMES)
    for seed, scan in enumerate(scans):
        assert_in_the_same_place(scan["image"], (volume(seed).clip(-100, 300) + 100) / 2)
        assert_in_the_same_place(scan["label"], label(seed))
    content = json.loads((folder / "dataset.json").read_text())
    assert (content["name"], content["modality"], content["licence"]) == ("Hippocampus", {"0": "CT"}, "CC-BY-SA 4.0")
    assert load_class_names(folder) == {1: "Anterior", 2: "Posterior"}
    assert len(load_folds(folder)) == 2
    assert content["provenance"]["settings"]["window"] == [-100, 300]
    assert "imagesTr/hip_001.nii.gz" in content["provenance"]["scans"]["hip_001"]["sources"]["image"]


@pytest.mark.parametrize(("channel", "number"), [(2, 2), ("T2w", 2), ("flair", 0)])
def test_one_channel_of_4d_mr_is_clipped(decathlon, tmp_path, channel, number):
    folder = prepare_decathlon(decathlon(CHANNELS), tmp_path / "out", channel, clip_percent=5, **NUMBERS)
    expected = volume(1, 3)[..., number].astype(float)
    expected = expected.clip(None, np.percentile(expected, 95))
    assert_in_the_same_place(load_scans(folder)[1]["image"], expected)
    content = json.loads((folder / "dataset.json").read_text())
    assert content["modality"] == {"0": "MR"}
    assert content["provenance"]["settings"]["channel"] == number


def test_a_channel_must_be_chosen(decathlon, tmp_path):
    text = (
        r"channel is None; the images of this data set have the channels 0 \(FLAIR\), 1 \(T1w\), 2 \(T2w\): choose one"
    )
    with pytest.raises(ValueError, match=text):
        prepare_decathlon(decathlon(CHANNELS), tmp_path / "out", **NUMBERS)
    for wrong in (3, -1, "T1"):
        with pytest.raises(ValueError, match=f"channel is {wrong!r}; "):
            choose_channel(CHANNELS, wrong)
    assert not (tmp_path / "out").exists()


def test_numbers_of_the_chain_are_arguments(decathlon, tmp_path):
    folder = prepare_decathlon(
        decathlon(), tmp_path / "out", modality="MR", spacing=(2.8, 2.8, 0), size=(8, 8), orientation="LPS", **NUMBERS
    )
    image = nib.load(load_scans(folder)[0]["image"])
    assert image.shape == (8, 8, 6)
    np.testing.assert_allclose(image.header.get_zooms()[:2], 2.8, rtol=1e-5)
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")


def test_archive_of_a_task(decathlon, tmp_path):
    folder = decathlon()
    with tarfile.open(tmp_path / "Task04.tar", "w") as file:
        file.add(folder, folder.name)
    out = prepare_decathlon(tmp_path / "Task04.tar", tmp_path / "out", modality="raw", **NUMBERS)
    assert_in_the_same_place(load_scans(out)[2]["image"], volume(2))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    prepare_decathlon(tmp_path / "Task04.tar", tmp_path / "out", modality="raw", **NUMBERS)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


def test_all_problems_of_a_decathlon_at_once(decathlon, tmp_path):
    folder = decathlon(CHANNELS, numTraining=5)
    write(folder / "imagesTr" / "hip_010.nii.gz", volume(0))
    write(folder / "imagesTr" / "hip_001.nii.gz", volume(0))
    (folder / "labelsTr" / "hip_004.nii.gz").unlink()
    write(folder / "labelsTr" / "hip_009.nii.gz", label(0, highest=7))
    with pytest.raises(ValueError, match="problem") as error:
        prepare_decathlon(folder, tmp_path / "out", "T1w", **NUMBERS)
    lines = str(error.value).splitlines()[1:-1]
    expected = [
        "dataset.json: says numTraining is 5, and lists 3 scans",
        "hip_010.nii.gz: is not listed in dataset.json",
        "hip_001.nii.gz: has 1 channel(s), of which number 1 is to be taken",
        "hip_009.nii.gz: holds the value(s) 7; expected 0 and 1, 2",
        "hip_004.nii.gz: is missing",
    ]
    assert len(lines) == len(expected)
    assert all(text in line for text, line in zip(expected, lines, strict=True)), lines
    assert not (tmp_path / "out").exists()


def test_nnunet(nnunet, tmp_path):
    folder = prepare_nnunet(nnunet.parent, tmp_path / "out", channel="PET", **NUMBERS)
    scans = load_scans(folder, require_labels=True)
    assert [scan["name"] for scan in scans] == list(NAMES)
    for seed, scan in enumerate(scans):
        assert_in_the_same_place(scan["image"], volume(10 + seed))
        assert_in_the_same_place(scan["label"], label(seed))
    content = json.loads((folder / "dataset.json").read_text())
    assert (content["name"], content["modality"]) == ("Dataset007_Pancreas", {"0": "PET"})
    assert load_class_names(folder) == {1: "pancreas", 2: "tumor"}


def test_problems_of_nnunet(nnunet, tmp_path):
    (nnunet / "imagesTr" / "hip_001_0001.nii.gz").unlink()
    (nnunet / "labelsTr" / "hip_004.nii.gz").unlink()
    (nnunet / "labelsTr" / "hip_009.nii.gz").unlink()
    (nnunet / "imagesTr" / "hip_009_0001.nii.gz").unlink()
    with pytest.raises(ValueError, match="problem") as error:
        prepare_nnunet(nnunet, tmp_path / "out", channel=1, **NUMBERS)
    text = str(error.value)
    assert "hip_004_0001.nii.gz: has no label hip_004.nii.gz in labelsTr" in text
    assert "hip_001.nii.gz: has no image hip_001_0001.nii.gz in imagesTr" in text
    assert "says numTraining is 3, and there are 2 scans" in text


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({"background": 0, "b": 2, "a": 1}, {1: "a", 2: "b"}),
        ({"0": "background", "1": "a", "2": "b"}, {1: "a", 2: "b"}),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "b": 3}, {1: "class 1", 2: "class 2", 3: "b"}),
    ],
)
def test_classes_of_nnunet(tmp_path, labels, names):
    assert nnunet_class_names({"labels": labels}, tmp_path) == names


@pytest.mark.parametrize("labels", [None, [], {"background": 0, "a": 1, "ignore": 2}, {"a": "b"}, {"a": {}}])
def test_bad_classes_of_nnunet(tmp_path, labels):
    with pytest.raises(ValueError, match=r'dataset\.json: "labels" is .*; expected numbers by name'):
        nnunet_class_names({"labels": labels}, tmp_path)


def test_plain_folder_of_other_formats(tmp_path):
    for seed, name in enumerate(NAMES):
        for kind, array in (("scans", volume(seed)), ("masks", label(seed))):
            write(tmp_path / "source" / kind / f"{name}.nii.gz", array)
            image = sitk.ReadImage(tmp_path / "source" / kind / f"{name}.nii.gz")
            (tmp_path / "source" / kind / f"{name}.nii.gz").unlink()
            name_of_file = name if kind == "scans" else f"{name}_seg"
            sitk.WriteImage(image, tmp_path / "source" / kind / f"{name_of_file}.{('mha', 'nrrd')[kind == 'masks']}")
    names = {"images": "scans", "labels": "masks", "label_suffix": "_seg", "class_names": ("front", "back")}
    folder = prepare_folder(tmp_path, tmp_path.with_name(f"{tmp_path.name}_out"), **names, **NUMBERS)
    for seed, scan in enumerate(load_scans(folder, require_labels=True)):
        assert_in_the_same_place(scan["image"], volume(seed))
        assert_in_the_same_place(scan["label"], label(seed))
    assert load_class_names(folder) == {1: "front", 2: "back"}
    assert json.loads((folder / "dataset.json").read_text())["name"] == "source"


def test_problems_of_a_plain_folder(tmp_path):
    source = tmp_path / "source"
    for seed, name in enumerate("abcd"):
        write(source / "images" / f"{name}.nii", volume(seed))
        write(source / "labels" / f"{name}.nii", label(seed, highest=5))
    write(source / "images" / "a.nii.gz", volume(0))
    (source / "labels" / "b.nii").unlink()
    (source / "images" / "c.nii").unlink()
    with pytest.raises(ValueError, match=r"^3 problem\(s\) in 3 of 3 scans") as error:
        prepare_folder(source, tmp_path / "out", **NUMBERS)
    for text in (
        "a: .*images: holds a.nii, a.nii.gz; remove",
        "b.nii: has no label b in labels",
        "c.nii: has no image",
    ):
        assert re.search(text, str(error.value))
    folder = prepare_folder(source, tmp_path / "out", workers=0, num_folds=0, skip_broken=True)
    assert [scan["name"] for scan in load_scans(folder)] == ["d"]
    assert load_class_names(folder) == {1: "class 1", 5: "class 5"}


def test_a_grid_that_differs_between_formats_is_found(tmp_path):
    write(tmp_path / "source" / "images" / "a.nii", volume(0))
    image = sitk.ReadImage(tmp_path / "source" / "images" / "a.nii")
    labels = sitk.Cast(image > 0, sitk.sitkUInt8)
    origin = np.array(labels.GetOrigin())
    labels.SetOrigin((origin + np.array([0, 2, 0])).tolist())
    (tmp_path / "source" / "labels").mkdir()
    sitk.WriteImage(labels, tmp_path / "source" / "labels" / "a.nrrd")
    with pytest.raises(ValueError, match=r"a\.nrrd: lies up to 2 mm away from its image"):
        prepare_folder(tmp_path / "source", tmp_path / "out", class_names=["a"], workers=0, num_folds=0)


def test_a_source_must_be_one_data_set(decathlon, tmp_path):
    with pytest.raises(ValueError, match=r"source .* holds no dataset\.json: give the folder or archive"):
        prepare_decathlon(tmp_path, tmp_path.with_name("out"), **NUMBERS)
    folder = decathlon()
    (tmp_path / "Other").mkdir()
    (tmp_path / "Other" / "dataset.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds several data sets, .*Other and .*: give one of them"):
        prepare_decathlon(folder.parent, tmp_path.with_name("out"), **NUMBERS)
    with pytest.raises(ValueError, match=r"the channels are \['CT'\]; expected names by number"):
        prepare_decathlon(decathlon(channel_names=["CT"]), tmp_path.with_name("out"), **NUMBERS)


@pytest.mark.parametrize(
    ("name", "modality"), [("CT", "CT"), ("MRI", "MR"), ("T1w", "MR"), ("FLAIR", "MR"), ("PET", "PET"), ("", "")]
)
def test_modality_of_a_channel(name, modality):
    assert modality_of(name) == modality
