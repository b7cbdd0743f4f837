# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import functools

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage
from PIL import Image

from monai_fewshot.data import IMAGE_AFFINE, ImageMaskWriter, MaskWriter

AFFINE = torch.tensor([[-1.4, 0.1, 0, 4], [0.1, 1.6, 0, -3], [0, 0, 7.5, 2], [0, 0, 0, 1]], dtype=torch.float64)


@pytest.mark.parametrize("size", [(5, 4, 3), (5, 4, 1), (5, 1, 1), (1, 4, 3)])
@pytest.mark.parametrize("with_channel", [False, True])
def test_no_axis_is_lost(tmp_path, size, with_channel):
    values = torch.arange(np.prod(size), dtype=torch.uint8).reshape(size)
    mask = MetaTensor(values[None] if with_channel else values, affine=AFFINE, meta={"filename_or_obj": "scan.nii.gz"})
    save = SaveImage(
        tmp_path,
        "seg",
        output_dtype=np.uint8,
        separate_folder=False,
        resample=False,
        writer=MaskWriter,
        channel_dim=0 if with_channel else None,
        print_log=False,
    )
    save(mask)
    written = nibabel.load(tmp_path / "scan_seg.nii.gz")
    assert written.shape == size
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(written.dataobj, values)
    np.testing.assert_allclose(written.affine, AFFINE, atol=1e-6)


def _write_png(folder, values, writer=ImageMaskWriter):
    mask = MetaTensor(
        torch.from_numpy(values)[None, ..., None],
        affine=torch.from_numpy(IMAGE_AFFINE),
        meta={"filename_or_obj": "image.jpg"},
    )
    SaveImage(
        folder,
        "seg",
        ".png",
        output_dtype=np.uint8,
        separate_folder=False,
        resample=False,
        writer=writer,
        print_log=False,
    )(mask)
    written = Image.open(folder / "image_seg.png")
    assert written.mode == "L"
    return np.asarray(written)


@pytest.mark.parametrize("size", [(5, 8), (8, 5), (1, 4), (4, 1), (1, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_pixels_of_an_image_keep_their_places(tmp_path, size, dtype):
    values = np.zeros(size, dtype)
    values[0, size[1] // 2 :] = 1
    np.testing.assert_array_equal(_write_png(tmp_path, values), 255 * values)


def test_an_empty_mask_is_written(tmp_path):
    assert not _write_png(tmp_path, np.zeros((4, 6), np.uint8)).any()


@pytest.mark.parametrize("present", [[1], [2], [1, 2], [0]])
def test_masks_of_several_classes_hold_their_numbers(tmp_path, present):
    values = np.resize([0, *present], (4, 5)).astype(np.uint8)
    writer = functools.partial(ImageMaskWriter, highest=2)
    np.testing.assert_array_equal(_write_png(tmp_path, values, writer), values)


def test_a_class_beyond_those_announced():
    with pytest.raises(
        ValueError, match=r"holds class 3, but is to be written as one of classes up to 2: give .*highest"
    ):
        ImageMaskWriter(highest=2).set_data_array(torch.full((1, 2, 2, 1), 3))
