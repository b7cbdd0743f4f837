# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from monai_fewshot.data import CheckImaged, check_images, image_reading


def _array(channels=3):
    return np.random.default_rng(0).integers(0, 256, (8, 12, channels), dtype=np.uint8)


def _image(path, mode="RGB"):
    if mode == "I;16":
        Image.fromarray(300 * _array(1)[..., 0].astype(np.uint16)).save(path)
    else:
        Image.fromarray(_array()).convert(mode).save(path)
    return path


def _mask(path, value=255, size=(8, 12)):
    mask = np.zeros(size, np.uint8)
    mask[2:6, 3:9] = value
    Image.fromarray(mask).save(path)
    return path


def _item(folder, mode="RGB", image="image.png", **mask):
    return {
        "name": "x",
        "image": str(_image(folder / image, mode)),
        "label": str(_mask(folder / "mask.png", **mask)),
        "class_number": 1,
    }


def test_rows_come_first_and_bytes_stay_bytes(tmp_path):
    read = image_reading()(_item(tmp_path))
    assert (read["image"].dtype, read["label"].dtype) == (torch.uint8, torch.uint8)
    assert np.array_equal(read["image"].numpy(), _array().transpose(2, 0, 1))
    assert read["label"].shape == (1, 8, 12)
    assert read["label"][0, 2:6, 3:9].all()
    assert read["label"].sum() == 24


@pytest.mark.parametrize(
    ("mode", "channels", "message"),
    [
        ("L", 3, r"is a gray image; expected colors \(RGB\), 8 bits.*convert\(\"RGB\"\), or ask for channels=1"),
        ("RGBA", 3, r"has a fourth channel, transparency; expected colors.*convert\(\"RGB\"\)\.$"),
        ("I;16", 3, "has 16 bits a pixel; expected colors"),
        ("P", 3, "has a palette instead of colors; expected"),
        ("1", 3, "is an image of black and white"),
        ("RGB", 1, r"is a color image; expected gray levels, .*convert\(\"L\"\), or ask for channels=3"),
        ("I;16", 1, "has 16 bits a pixel; expected gray levels"),
    ],
)
def test_images_of_another_kind(tmp_path, mode, channels, message):
    with pytest.raises(ValueError, match=message) as error:
        _checked(_item(tmp_path, mode), channels=channels)
    assert str(error.value).startswith(str(tmp_path / "image.png"))


def _loaded(item):
    return image_reading().transforms[0](item)


def _checked(item, **options):
    return CheckImaged("image", **options)(_loaded(item))


def test_gray_images_where_they_are_meant(tmp_path):
    assert image_reading(channels=1)(_item(tmp_path, "L"))["image"].shape == (1, 8, 12)


def test_binary_masks_take_the_number_of_their_class(tmp_path):
    for value in (1, 255):
        for number in (1, 7, 700):
            read = image_reading()({**_item(tmp_path, value=value), "class_number": number})
            assert read["label"].unique().tolist() == [0, number]


def test_masks_with_the_gray_levels_of_jpeg(tmp_path):
    path = tmp_path / "mask.jpg"
    Image.open(_mask(tmp_path / "mask.png")).save(path, quality=60)
    item = {**_item(tmp_path), "label": str(path)}
    with pytest.raises(ValueError, match=r"mask\.jpg: holds \d+ gray levels \(.*as JPEG.*a mask_threshold such as 127"):
        _checked(item)
    read = image_reading()({**item, "mask_threshold": 127})
    expected = np.zeros((8, 12), bool)
    expected[2:6, 3:9] = True
    assert np.array_equal(read["label"][0].numpy(), expected)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"value": 0}, "is empty, no pixel is foreground"),
        ({"value": np.arange(1, 7)}, "holds 7 gray levels"),
        ({"size": (12, 8)}, r"mask of 12 x 8 pixels \(rows x columns\), its image has 8 x 12; export it again"),
    ],
)
def test_masks_that_do_not_fit(tmp_path, mask, message):
    with pytest.raises(ValueError, match=message) as error:
        _checked(_item(tmp_path, **mask))
    assert str(error.value).startswith(str(tmp_path / "mask.png"))


def test_masks_without_background(tmp_path):
    item = _item(tmp_path)
    Image.fromarray(1 + np.eye(8, 12, dtype=np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="holds 1, 2, but no 0 for the background; save it with 0 and 255"):
        _checked(item)


def test_masks_of_several_channels(tmp_path):
    item = _item(tmp_path)
    with pytest.raises(
        ValueError, match="is a mask of 3 channels that differ; save it as one channel of class numbers"
    ):
        _checked({**item, "label": item["image"]})


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1", "P"])
def test_masks_that_were_saved_as_gray_in_another_mode(tmp_path, mode):
    """FSS-1000 has RGB masks of equal channels, PH2 masks of one bit."""
    item = _item(tmp_path)
    Image.open(item["label"]).convert(mode).save(tmp_path / "converted.png")
    read = image_reading()({**item, "label": str(tmp_path / "converted.png")})
    assert torch.equal(read["label"], image_reading()(item)["label"])


def test_jpeg_masks_of_equal_channels(tmp_path):
    path = tmp_path / "mask.jpg"
    Image.open(_mask(tmp_path / "mask.png")).convert("RGB").save(path, quality=60)
    item = {**_item(tmp_path), "label": str(path)}
    with pytest.raises(ValueError, match="gray levels"):
        _checked(item)
    assert image_reading()({**item, "mask_threshold": 127})["label"].sum() == 24


def test_indices_of_a_palette_are_class_numbers(tmp_path):
    """As Pascal VOC has them: colors by class, index 255 in white for what is ignored."""
    item = _item(tmp_path)
    del item["class_number"]
    values = np.zeros((8, 12), np.uint8)
    values[2:6, 3:9], values[0] = 15, 255
    mask = Image.fromarray(values, "L")
    mask.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    mask.save(tmp_path / "palette.png")
    assert Image.open(tmp_path / "palette.png").mode == "P"
    read = image_reading(classes=[15])({**item, "label": str(tmp_path / "palette.png")})
    assert np.array_equal(read["label"][0].numpy(), values)


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_colors_of_16_bits(tmp_path):
    """PIL opens such a file as one of 8 bits."""
    rows = b"".join(b"\0" + (np.arange(36, dtype=">u2") * 1000).tobytes() for _ in range(8))
    header = struct.pack(">IIBBBBB", 12, 8, 16, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    item = _item(tmp_path)
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    assert Image.open(tmp_path / "image.png").mode == "RGB"
    with pytest.raises(ValueError, match=r"image\.png: has 16 bits a channel; expected colors \(RGB\), 8 bits"):
        _checked(item)


def test_masks_of_class_numbers_beyond_8_bits(tmp_path):
    item = _item(tmp_path)
    del item["class_number"]
    Image.fromarray(np.full((8, 12), 300, np.uint16)).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="holds 300, which are no classes"):
        _checked(item)


def test_masks_of_class_numbers(tmp_path):
    item = _item(tmp_path, value=4)
    del item["class_number"]
    assert image_reading(classes=[1, 4])(dict(item))["label"].unique().tolist() == [0, 4]
    with pytest.raises(ValueError, match="holds 4, which are no classes; expected 0, 255"):
        _checked(item, classes=[1, 2])


def test_an_image_without_a_mask(tmp_path):
    item = {"name": "x", "image": str(_image(tmp_path / "image.png"))}
    assert set(image_reading()(dict(item))) == {"name", "image"}


def test_every_problem_of_a_set_at_once(tmp_path):
    good = _item(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no")
    bad = [
        {"name": "gray", "image": str(_image(tmp_path / "gray.png", "L"))},
        {"name": "broken", "image": str(tmp_path / "broken.png")},
        {"name": "absent", "image": str(tmp_path / "absent.png")},
    ]
    check_images([good])
    with pytest.raises(ValueError, match="3 problem\\(s\\) in 3 of 4 images") as error:
        check_images([good, *bad])
    lines = str(error.value).splitlines()[1:]
    assert lines[0].startswith(f"{tmp_path / 'gray.png'}: is a gray image")
    assert lines[1].startswith(f"{tmp_path / 'broken.png'}: cannot be read as a picture (")
    assert lines[2].startswith(f"{tmp_path / 'absent.png'}: is missing; restore it")


def test_odd_channels_are_refused():
    with pytest.raises(ValueError, match="channels is 4, must be 3"):
        CheckImaged("image", channels=4)
