# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from monai_fewshot.data import LoadScand, check_scans
from monai_fewshot.data.images.image_checks import check_images

VOXELS = np.random.default_rng(0).normal(size=(12, 10, 6)).astype(np.float32)
TEXTS = {
    "a.nii.gz": "is truncated or damaged: its gzip stream is not whole",
    "a.nrrd": "is truncated or damaged: its gzip stream is not whole",
    "a.nhdr": "is truncated or damaged: its gzip stream is not whole",
    "a.mha": "is truncated or damaged: its zlib stream is not whole",
    "a.mhd": "is truncated or damaged: its zlib stream is not whole",
    "a.png": "cannot be read as a picture",
}
DATA = {"a.nhdr": "a.raw.gz", "a.mhd": "a.zraw"}


@pytest.fixture(params=list(TEXTS))
def file(request, tmp_path):
    file = tmp_path / request.param
    if file.suffix == ".png":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)).save(file)
    elif file.suffix == ".gz":
        nibabel.save(nibabel.Nifti1Image(VOXELS, np.eye(4)), file)
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOXELS.T), str(file), useCompression=True)
    return file


def _refusals(file):
    """What loading and checking say."""
    for read in (lambda: LoadScand()({"image": str(file)}), lambda: check_scans([{"name": "a", "image": str(file)}])):
        with pytest.raises(ValueError, match=re.escape(file.name)) as caught:
            read()
        yield str(caught.value)


def test_a_whole_file_is_read(file):
    voxels = LoadScand()({"image": str(file)})["image"].numpy()[0]
    expected = np.asarray(Image.open(file))[..., None] if file.suffix == ".png" else VOXELS
    np.testing.assert_array_equal(voxels, expected)


@pytest.mark.parametrize("place", [0.6, 0.9, -2])
def test_a_bit_flip_in_the_compressed_voxels_or_their_checksum_is_refused(file, place):
    data = file.with_name(DATA.get(file.name, file.name))
    raw = bytearray(data.read_bytes())
    end = len(raw) - 12 if file.suffix == ".png" else len(raw)
    raw[end + place if isinstance(place, int) else int(place * end)] ^= 1
    data.write_bytes(raw)
    assert all(f"{file}: {TEXTS[file.name]}" in text for text in _refusals(file))


def test_a_truncated_file_is_refused(file):
    data = file.with_name(DATA.get(file.name, file.name))
    data.write_bytes(data.read_bytes()[:-5])
    assert all(f"{file}: {TEXTS[file.name]}" in text for text in _refusals(file))


def test_a_name_that_lies_about_compression_is_told(tmp_path):
    whole, packed = tmp_path / "a.nii", tmp_path / "b.nii.gz"
    nibabel.save(nibabel.Nifti1Image(VOXELS, np.eye(4)), whole)
    nibabel.save(nibabel.Nifti1Image(VOXELS, np.eye(4)), packed)
    shutil.copy(whole, tmp_path / "c.nii.gz")
    shutil.copy(packed, tmp_path / "d.nii")
    assert all("is not compressed, although its name ends with .gz" in t for t in _refusals(tmp_path / "c.nii.gz"))
    assert all("is compressed with gzip, but its name does not say so" in t for t in _refusals(tmp_path / "d.nii"))


def test_what_is_not_compressed_is_told_to_be_truncated(tmp_path):
    file = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(VOXELS, np.eye(4)), file)
    file.write_bytes(file.read_bytes()[:-300])
    assert all("a.nii: is truncated: it holds 2580 of 2880 bytes of voxels" in text for text in _refusals(file))


def test_whatever_a_library_raises_the_error_names_the_file(tmp_path):
    file = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(VOXELS, np.eye(4)), file)

    def fail(_path):
        raise KeyError("some part of a header")

    load = LoadScand()
    load.load = fail
    with pytest.raises(ValueError, match=r"a\.nii\.gz: cannot be read \(KeyError: 'some part of a header'\)"):
        load({"image": str(file)})


def test_a_damaged_png_of_a_set_is_named(tmp_path):
    for name, levels in (("image", 256), ("mask", 2)):
        pixels = np.random.default_rng(0).integers(0, levels, (40, 30), dtype=np.uint8)
        Image.fromarray(pixels).convert("RGB" if name == "image" else "L").save(tmp_path / f"{name}.png")
    raw = bytearray((tmp_path / "mask.png").read_bytes())
    raw[len(raw) - 14] ^= 1
    (tmp_path / "mask.png").write_bytes(raw)
    item = {"image": str(tmp_path / "image.png"), "label": str(tmp_path / "mask.png"), "class_number": 1}
    with pytest.raises(ValueError, match=r"mask\.png: cannot be read as a picture"):
        check_images([item])
