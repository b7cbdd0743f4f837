# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""2D images as gray volumes of one slice."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_fewshot.apps.prepare import prepare_images
from monai_fewshot.data import CheckScand, LoadScand, load_class_names, load_folds, load_scans

NUMBERS = {"workers": 0, "num_folds": 2}
SHAPE = (30, 40)


def make(folder, mode="RGB", names=("a", "b", "c"), shape=SHAPE):
    """Smooth images, bright where their masks are, and darker to the right."""
    for seed, name in enumerate(names):
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        mask = (rows > 5 + seed) & (rows < 20) & (columns > 10) & (columns < 30)
        gray = 40 + 100 * mask + 60 * (1 - columns / shape[1])
        pixels = np.stack([gray, gray * 0.5, 255 - gray], -1).astype(np.uint8) if mode == "RGB" else gray.astype("u1")
        for kind, array in (("images", pixels), ("masks", 255 * mask.astype(np.uint8))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / kind / f"{name}.png")
    return folder


def voxels(output, kind, name):
    return np.asanyarray(nib.load(output / kind / f"{name}.nii.gz").dataobj)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_image_of_the_size_keeps_its_pixels(tmp_path, mode):
    source = make(tmp_path / "source", mode)
    channels = 3 if mode == "RGB" else 1
    output = prepare_images(source, tmp_path / "out", size=40, channels=channels, **NUMBERS)
    expected = np.asarray(Image.open(source / "images" / "a.png").convert("L"), float)
    found = voxels(output, "imagesTr", "a")
    assert found.shape == (*SHAPE, 1)
    assert found.dtype == np.uint8
    assert np.abs(found[..., 0] - expected).max() <= 1
    mask = np.asarray(Image.open(source / "masks" / "a.png")) > 0
    np.testing.assert_array_equal(voxels(output, "labelsTr", "a")[..., 0], mask)


def test_the_longer_side_becomes_the_size_and_proportions_stay(tmp_path):
    source = make(tmp_path / "source", names=("a", "b"))
    make(source, names=("c",), shape=(60, 45))
    output = prepare_images(source, tmp_path / "out", size=20, **NUMBERS)
    assert voxels(output, "imagesTr", "a").shape == (15, 20, 1)
    assert voxels(output, "imagesTr", "c").shape == (20, 15, 1)
    label, mask = voxels(output, "labelsTr", "a")[..., 0], np.asarray(Image.open(source / "masks" / "a.png")) > 0
    assert set(np.unique(label)) == {0, 1}
    assert label.mean() == pytest.approx(mask.mean(), rel=0.15)
    inside = mask.reshape(15, 2, 20, 2).mean((1, 3)) == 1
    assert label[inside].all()


def test_what_is_written_is_a_data_set_of_scans(tmp_path):
    source = make(tmp_path / "source")
    output = prepare_images(source, tmp_path / "out", name="Lesions", class_names=["lesion"], **NUMBERS)
    assert load_class_names(output) == {1: "lesion"}
    assert [fold.support for fold in load_folds(output)] == [("c",), ("a",)]
    (scan, *_) = load_scans(output, require_labels=True)
    loaded = CheckScand("image", classes=(1,))(LoadScand()(scan))
    assert loaded["image"].shape == (1, 192, 256, 1)
    content = json.loads((output / "dataset.json").read_text())
    assert content["name"] == "Lesions"
    assert content["provenance"]["settings"]["size"] == 256


def test_images_of_folders_keep_apart(tmp_path):
    source = tmp_path / "source"
    for class_name in ("circle", "square"):
        made = make(tmp_path / class_name, names=("1", "2"))
        (source / class_name).mkdir(parents=True)
        for name in ("1", "2"):
            (made / "images" / f"{name}.png").rename(source / class_name / f"{name}.png")
            (made / "masks" / f"{name}.png").rename(source / class_name / f"{name}_mask.png")
    output = prepare_images(source, tmp_path / "out", size=40, **NUMBERS)
    assert [scan["name"] for scan in load_scans(output)] == ["circle_1", "circle_2", "square_1", "square_2"]
    assert set(np.unique(voxels(output, "labelsTr", "square_1"))) == {0, 2}


def test_problems_are_told_with_the_file(tmp_path):
    source = make(tmp_path / "source", "L")
    with pytest.raises(ValueError, match=r"3 problem.*(?s:.*)a.png: is a gray image; expected colors.*channels=1"):
        prepare_images(source, tmp_path / "out", **NUMBERS)
    with pytest.raises(ValueError, match="size is 0; give the pixels of the longer side"):
        prepare_images(source, tmp_path / "other", size=0, **NUMBERS)
