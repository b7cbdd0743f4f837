# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Pictures as volumes of one slice."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from monai_fewshot.data import CheckScand, LoadScand, VolumePreparation, check_scans, count_channels, load_scans
from monai_fewshot.data.images.image_checks import check_images, image_reading

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


SHAPE = (9, 14)
MARKED = np.zeros(SHAPE, np.uint8)
MARKED[2:5, 3:9] = 255
WHITE = np.full(SHAPE, 255, np.uint8)


@pytest.mark.parametrize(
    ("channels", "is_read"),
    [
        ((WHITE, MARKED), True),
        ((WHITE, WHITE, WHITE, MARKED), True),
        ((0 * WHITE, 0 * WHITE, 0 * WHITE, MARKED // 2), True),
        ((MARKED, MARKED, MARKED, WHITE), True),
        ((MARKED, MARKED, MARKED, MARKED), True),
        ((WHITE - MARKED, MARKED), False),
        ((WHITE, np.resize(np.array([0, 90, 255], np.uint8), SHAPE)), False),
    ],
    ids=["gray", "white", "black, half visible", "opaque", "both", "in black on nothing", "smooth"],
)
def test_transparency_that_holds_the_annotation(channels, is_read, tmp_path):
    image, mask = save(tmp_path / "a.png", COLORS), save(tmp_path / "mask.png", np.stack(channels, axis=-1))
    if is_read:
        assert np.array_equal(loaded(image, mask)["label"][0, ..., 0].numpy(), MARKED > 0)
        item = {"image": image, "label": mask, "class_number": 3}
        assert np.array_equal(image_reading()(item)["label"][0].numpy(), 3 * (MARKED > 0))
    else:
        with pytest.raises(ValueError, match=re.escape(mask) + r": is a mask of \d channels that differ"):
            loaded(image, mask)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_data_say(orientation, tmp_path):
    """By PIL's own enumeration of what a viewer does."""
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270"}
    turns |= {7: "TRANSVERSE", 8: "ROTATE_90"}
    file = tmp_path / "photo.png"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(COLORS).save(file, exif=exif)
    stored = Image.fromarray(COLORS)
    upright = stored.transpose(Image.Transpose[turns[orientation]]) if orientation > 1 else stored
    assert np.array_equal(loaded(str(file))["image"][..., 0].permute(1, 2, 0).numpy(), np.array(upright))
    assert np.array_equal(image_reading()({"image": str(file)})["image"].permute(1, 2, 0).numpy(), np.array(upright))


def _tiff(path, pixels):
    """A TIFF file of 16 bits a channel, written by hand, as PIL writes none of colors."""
    height, width, channels = pixels.shape
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, 158), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 164), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, pixels.nbytes)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + b"\0" * 4
    path.write_bytes(head.ljust(158, b"\0") + struct.pack("<3H", 16, 16, 16) + pixels.astype("<u2").tobytes())
    return str(path)


def test_what_reading_would_lose_is_told(tmp_path):
    deep = _tiff(tmp_path / "deep.tif", COLORS.astype(np.uint16) * 256)
    assert Image.open(deep).mode == "RGB"
    pages = tmp_path / "pages.tif"
    Image.fromarray(MARKED).save(pages, save_all=True, append_images=[Image.fromarray(MARKED)])
    image = save(tmp_path / "a.png", COLORS)
    for item, text in [
        ({"image": deep}, f"{deep}: has 16 bits a channel; expected colors (RGB), 8 bits a channel. Convert it"),
        ({"image": image, "label": deep}, f"{deep}: has 16 bits a channel; save one channel, 8 bits a pixel."),
        ({"image": image, "label": str(pages)}, f"{pages}: holds 2 pictures; save each as a file of its own."),
    ]:
        for read in (lambda item: loaded(*item.values()), lambda item: check_images([item])):
            with pytest.raises(ValueError, match=re.escape(text)):
                read(item)


@pytest.mark.parametrize("values", [[1, 2], [1], [100, 255]])
def test_masks_without_background_are_refused(values, tmp_path):
    image, mask = save(tmp_path / "a.png", COLORS), tmp_path / "mask.png"
    save(mask, np.resize(np.array(values, np.uint8), SHAPE))
    with pytest.raises(ValueError, match=re.escape(f"{mask}: holds {', '.join(map(str, values))}, but no 0 for the")):
        loaded(image, str(mask))


def test_masks_of_16_bits_and_of_an_inverted_palette(tmp_path):
    image = save(tmp_path / "a.png", COLORS)
    deep = save(tmp_path / "deep.tif", (MARKED > 0) * np.uint16(65535))
    inverted = Image.fromarray((MARKED == 0).astype(np.uint8), "P")
    inverted.putpalette([0, 0, 0, 255, 255, 255])
    swapped = Image.fromarray((MARKED == 0).astype(np.uint8), "P")
    swapped.putpalette([255, 255, 255, 0, 0, 0])
    inverted.save(tmp_path / "plain.png")
    swapped.save(tmp_path / "swapped.png")
    for file, expected in ((deep, MARKED > 0), ("plain.png", MARKED == 0), ("swapped.png", MARKED > 0)):
        assert np.array_equal(loaded(image, str(tmp_path / file))["label"][0, ..., 0].numpy(), expected), file
