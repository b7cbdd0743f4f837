# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Pictures as volumes of one slice."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from monai_fewshot.data import CheckScand, LoadScand, VolumePreparation, check_scans, count_channels, load_scans

COLORS = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def save(file, pixels, mode=None, **options):
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(file, **options)
    return str(file)


def loaded(image, label=None):
    return LoadScand()({"image": image, **({} if label is None else {"label": label})})


def test_a_picture_keeps_rows_columns_and_colors(tmp_path):
    for suffix in ("png", "bmp", "tif"):
        scan = {"image": save(tmp_path / f"a.{suffix}", COLORS)}
        volume = loaded(**scan)["image"]
        assert volume.dtype == torch.float32
        np.testing.assert_array_equal(volume.numpy()[..., 0].transpose(1, 2, 0), COLORS)
        assert count_channels(scan) == 3


def test_a_gray_picture_has_one_channel(tmp_path):
    file = save(tmp_path / "a.png", COLORS[..., 0])
    assert loaded(file)["image"].shape == (1, 9, 14, 1)
    assert count_channels({"image": file}) == 1


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("a.png", [0, 255], [0, 1]),
        ("a.png", [255], [1]),
        ("a.png", [0, 1], [0, 1]),
        ("a.png", [0, 2, 5], [0, 2, 5]),
        ("a.jpg", [0, 255], [0, 1]),
        ("a.jpeg", [0, 120, 200], [0, 1]),
    ],
)
def test_a_mask_holds_class_numbers_or_black_and_white(name, values, expected, tmp_path):
    rows = np.repeat(np.resize(values, 6).astype(np.uint8), 8)
    mask = save(tmp_path / name, np.tile(rows[:, None], (1, 14)))
    image = save(tmp_path / "image.png", np.zeros((48, 14, 3), np.uint8))
    label = loaded(image, mask)["label"]
    assert label.unique().tolist() == expected
    assert label.shape == (1, 48, 14, 1)


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("RGBA", "has a fourth channel, transparency; expected colors (RGB)"),
        ("LA", "is a gray image with transparency; expected gray levels"),
        ("P", "has a palette instead of colors; expected colors"),
        ("1", "is an image of black and white; expected gray levels"),
        ("I;16", "has 16 bits a pixel; expected gray levels, 8 bits a channel. Convert it"),
    ],
)
def test_other_pictures_are_refused_with_what_to_do(mode, text, tmp_path):
    deep = mode == "I;16"
    file = save(tmp_path / "odd.png", COLORS[..., 0].astype(np.uint16) if deep else COLORS, None if deep else mode)
    with pytest.raises(ValueError, match=re.escape(file) + ": .*" + re.escape(text)):
        loaded(file)


def test_files_that_are_no_picture_are_named(tmp_path):
    broken, several = tmp_path / "broken.jpg", tmp_path / "several.tif"
    broken.write_text("no picture")
    Image.fromarray(COLORS).save(several, save_all=True, append_images=[Image.fromarray(COLORS)])
    scans = [{"name": name, "image": str(tmp_path / name)} for name in ("broken.jpg", "several.tif", "absent.png")]
    with pytest.raises(ValueError, match="problem") as caught:
        check_scans(scans, num_channels=3)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("3 problem(s) in 3 of 3 scans")
    assert lines[0] == f"{broken}: cannot be read as a picture (cannot identify image file); copy it again, or " + (
        "export it anew."
    )
    assert lines[1] == f"{several}: holds 2 pictures; save each as a file of its own."
    assert lines[2].startswith(f"{tmp_path / 'absent.png'}: is missing")


@pytest.mark.parametrize(
    ("pixels", "text"),
    [
        (np.zeros((9, 13), np.uint8), "is a mask of 9 x 13 pixels (rows x columns), its image has 9 x 14; export it"),
        (np.resize(np.array([0, 100, 255], np.uint8), (9, 14)), "holds 3 levels (0, 100, 255), 255 among them"),
        (COLORS, "is a mask of 3 channels that differ; save it as one channel"),
    ],
)
def test_masks_that_do_not_fit_are_named(pixels, text, tmp_path):
    image, mask = save(tmp_path / "a.png", COLORS), save(tmp_path / "mask.png", pixels)
    with pytest.raises(ValueError, match=re.escape(f"{mask}: {text}")):
        loaded(image, mask)


def test_a_gray_picture_among_color_ones_is_told(tmp_path):
    gray = save(tmp_path / "gray.png", COLORS[..., 0])
    with pytest.raises(ValueError, match=re.escape(f"{gray}: is a gray picture; expected a color one")):
        CheckScand("image", num_channels=3)(loaded(gray))
    color = save(tmp_path / "color.png", COLORS)
    with pytest.raises(ValueError, match=re.escape(f"{color}: is a color picture; expected a gray one")):
        CheckScand("image")(loaded(color))


def test_pictures_of_a_folder_are_listed_where_it_has_no_volume(tmp_path):
    for name in ("b.JPG", "a.png"):
        save(tmp_path / name, COLORS)
    (tmp_path / "notes.txt").touch()
    assert [scan["name"] for scan in load_scans(tmp_path)] == ["a", "b"]
    (tmp_path / "volume.nii.gz").touch()
    assert [scan["name"] for scan in load_scans(tmp_path)] == ["volume"]


def test_each_channel_is_normalized_by_itself(tmp_path):
    file = save(tmp_path / "a.png", (COLORS // [1, 2, 4]).astype(np.uint8))
    image = VolumePreparation(channels=3, pictures=True).transform()({"image": file})["image"]
    assert image.mean((1, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert image.std((1, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-4)


@pytest.mark.parametrize("pictures", [True, False])
def test_pictures_and_volumes_do_not_pass_for_one_another(pictures, tmp_path):
    scans = [{"name": "a", "image": save(tmp_path / "a.png", COLORS[..., 0])}, {"name": "b", "image": "b.nii.gz"}]
    with pytest.raises(ValueError, match=r"The model is of .*, but 1 of 2 scans are .*: " + "ab"[pictures]):
        VolumePreparation(pictures=pictures).check(scans)
