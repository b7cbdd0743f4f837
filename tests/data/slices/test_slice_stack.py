# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from skimage.transform import resize

from monai_fewshot.data import SliceStack
from monai_fewshot.data.slices import slice_stack as slices


def _scans(sizes=((16, 12, 3), (16, 12, 5)), channels=1):
    generator = np.random.default_rng(0)
    return [
        {
            "image": MetaTensor(generator.normal(size=(channels, *size)).astype(np.float32)),
            "pseudo_label": MetaTensor(generator.integers(0, 40, (1, *size)).astype(np.int32)),
            "label": MetaTensor((generator.random((1, *size)) < 0.004) * generator.integers(1, 4, (1, *size))),
        }
        for size in sizes
    ]


def test_slices_lie_along_the_last_axis():
    scans = _scans(channels=2)
    stack = SliceStack.from_scans(scans)
    assert stack.image.shape == (8, 2, 16, 12)
    assert stack.label.shape == (8, 1, 16, 12)
    assert stack.scan.tolist() == [0] * 3 + [1] * 5
    assert {type(tensor) for tensor in (stack.image, stack.label, stack.scan)} == {torch.Tensor}
    row = 0
    for scan in scans:
        for z in range(scan["image"].shape[-1]):
            assert torch.equal(stack.image[row], scan["image"].as_tensor()[..., z].half())
            assert torch.equal(stack.label[row], scan["pseudo_label"].as_tensor()[..., z])
            row += 1


def test_types_are_as_small_as_the_values_allow(caplog):
    scans = _scans()
    with caplog.at_level(logging.INFO):
        stack = SliceStack.from_scans(scans)
    assert (stack.image.dtype, stack.label.dtype) == (torch.float16, torch.uint8)
    assert f"8 slices of (1, 16, 12) take {8 * 16 * 12 * 3 / 1e6:.1f} MB" in caplog.text
    scans[1]["pseudo_label"][0, 3, 4, 2] = 300
    assert SliceStack.from_scans(scans).label.dtype == torch.int16
    scans[1]["pseudo_label"][0, 3, 4, 2] = 40_000
    assert SliceStack.from_scans(scans).label.dtype == torch.int32
    assert SliceStack.from_scans(scans).label[5, 0, 3, 4] == 40_000


@pytest.mark.parametrize(("factor", "offset"), [(1e6, 0.0), (1.0, 1000.0)])
def test_intensities_that_half_precision_would_spoil_stay_as_they_are(factor, offset):
    scans = _scans()
    scans[1]["image"] = scans[1]["image"] * factor + offset
    stack = SliceStack.from_scans(scans)
    assert stack.image.dtype == torch.float32
    assert torch.equal(stack.image[3:].movedim(0, 3), scans[1]["image"].as_tensor())


def test_taken_slices_are_float_images_and_their_labels():
    stack = SliceStack.from_scans(_scans())
    image, label = stack.take([6, 0, 6])
    assert image.dtype == torch.float32
    assert torch.equal(image, stack.image[[6, 0, 6]].float())
    assert torch.equal(label, stack.label[[6, 0, 6]])


def test_slices_stay_in_host_memory_where_a_device_has_no_room(monkeypatch, caplog):
    device = torch.device("cpu:0")  # differs from "cpu", where the slices are, and stands for a GPU
    needed = 8 * 16 * 12 * 3
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(slices, "_free_memory", lambda device: 2 * needed - 1)
    roomy = SliceStack.from_scans(_scans(), device="cpu")
    stack = SliceStack.from_scans(_scans(), device=device)
    assert "Slices stay in host memory, for cpu:0 has 0.0 MB free" in caplog.text
    assert stack.device == device
    assert all(map(torch.equal, stack.take([1, 7, 7, 2]), roomy.take([1, 7, 7, 2])))
    monkeypatch.setattr(slices, "_free_memory", lambda device: 2 * needed)
    assert SliceStack.from_scans(_scans(), device=device).device is None


def test_label_maps_serve_as_well():
    scans = _scans()
    stack = SliceStack.from_scans(scans, label_key="label")
    assert torch.equal(stack.label[3:].movedim(0, 3), scans[1]["label"].as_tensor().int())


def test_slices_are_brought_to_one_size():
    scans = _scans(((32, 24, 2), (40, 40, 3)))
    stack = SliceStack.from_scans(scans, image_size=[16, 16])
    assert stack.image.shape == (5, 1, 16, 16)
    for row, (scan, z) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]):
        label = scans[scan]["pseudo_label"][0, ..., z].numpy()
        rows, columns = (((np.arange(16) + 0.5) * n / 16).astype(int) for n in label.shape)
        np.testing.assert_array_equal(stack.label[row, 0], label[np.ix_(rows, columns)])
    smooth = MetaTensor(np.add.outer(np.arange(32.0), 2 * np.arange(24.0))[None, :, :, None].astype(np.float32))
    stack = SliceStack.from_scans([{"image": smooth, "pseudo_label": smooth}], image_size=(20, 12))
    expected = resize(smooth[0, ..., 0].numpy(), (20, 12), order=1, anti_aliasing=False)
    np.testing.assert_allclose(stack.image[0, 0, 2:-2, 2:-2], expected[2:-2, 2:-2], atol=0.2)


@pytest.mark.parametrize("classes", [[1], [2, 3], [3, 1, 2]])
def test_setting_2_drops_every_slice_of_a_tested_class(classes):
    scans = _scans(((16, 12, 6), (16, 12, 7), (16, 12, 4)))
    kept = [
        (number, z)
        for number, scan in enumerate(scans)
        for z in range(scan["label"].shape[-1])
        if not any(int(v) in classes for v in scan["label"][..., z].flatten())
    ]
    assert 0 < len(kept) < 17
    stack = SliceStack.from_scans(scans, exclude_classes=classes)
    assert stack.scan.tolist() == [number for number, _ in kept]
    for row, (number, z) in enumerate(kept):
        assert torch.equal(stack.image[row], scans[number]["image"].as_tensor()[..., z].half())
        assert torch.equal(stack.label[row], scans[number]["pseudo_label"].as_tensor()[..., z])


def test_setting_1_needs_no_label():
    scans = [{key: scan[key] for key in ("image", "pseudo_label")} for scan in _scans()]
    assert len(SliceStack.from_scans(scans).image) == 8


def test_nothing_left():
    scans = _scans()
    for scan in scans:
        scan["label"][:, 0, 0] = 2
    message = "No training slice is left: there are no scans, or every slice is excluded"
    with pytest.raises(ValueError, match=message):
        SliceStack.from_scans(scans, exclude_classes=[2])
    with pytest.raises(ValueError, match=message):
        SliceStack.from_scans([])


def test_differing_sizes_ask_for_one():
    with pytest.raises(ValueError, match=r"Slices of the scans differ .*\(1, 16, 12\), \(1, 16, 20\).*image_size"):
        SliceStack.from_scans(_scans(((16, 12, 3), (16, 20, 3))))


def _color_images(sizes=((20, 30), (40, 24))):
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": MetaTensor(torch.randint(0, 256, (3, *size), generator=generator).to(torch.uint8)),
            "label": MetaTensor(torch.randint(0, 3, (1, *size), generator=generator).to(torch.uint8)),
        }
        for size in sizes
    ]


def test_color_images_are_slices_of_bytes_that_come_out_between_0_and_1():
    images = _color_images([(20, 30), (20, 30)])
    stack = SliceStack.from_scans(images, label_key="label")
    assert (stack.image.dtype, stack.label.dtype) == (torch.uint8, torch.uint8)
    assert stack.scan.tolist() == [0, 1]
    image, label = stack.take([1, 0])
    for taken, number in zip(range(2), (1, 0), strict=True):
        assert torch.allclose(image[taken], images[number]["image"].as_tensor().float() / 255)
        assert torch.equal(label[taken], images[number]["label"].as_tensor())


def test_color_images_of_several_sizes_are_brought_to_one():
    images = _color_images()
    stack = SliceStack.from_scans(images, label_key="label", image_size=(10, 12))
    assert (stack.image.dtype, stack.image.shape) == (torch.uint8, (2, 3, 10, 12))
    expected = resize(images[0]["image"].numpy().astype(float), (3, 10, 12), anti_aliasing=True)
    assert np.abs(stack.image[0].numpy() - expected).mean() < 12
    assert stack.label.unique().tolist() == [0, 1, 2]


def test_slices_of_further_scans_are_numbered_on():
    scans = _scans(((16, 12, 2), (16, 12, 3)))
    one, other = SliceStack.from_scans(scans), SliceStack.from_scans(_scans(((16, 12, 4),)))
    other = SliceStack(other.image, other.label.short() + 300, other.scan)
    both = SliceStack.from_scans(scans, further=other)
    assert both.scan.tolist() == [0] * 2 + [1] * 3 + [2] * 4
    assert torch.equal(both.image, torch.cat([one.image, other.image]))
    assert torch.equal(both.label, torch.cat([one.label, other.label]))
    image, label = both.take([6, 1])
    assert torch.equal(image, torch.stack([other.image[1], one.image[1]]).float())
    assert torch.equal(label, torch.stack([other.label[1], one.label[1]]))


def test_further_slices_of_other_precision_keep_their_intensities():
    one = SliceStack.from_scans(_scans())
    other = SliceStack(one.image.float() * 1e6, one.label.short() + 400, one.scan)
    both = SliceStack.from_scans(_scans(), further=other)
    assert torch.equal(both.image[8:], other.image)
    assert torch.equal(both.label[:8], one.label.short())
    assert torch.equal(both.label[8:], other.label)


def test_further_slices_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"differ .*\(1, 16, 12\), \(1, 16, 20\)"):
        SliceStack.from_scans(_scans(), further=SliceStack.from_scans(_scans(((16, 20, 3),))))


def test_images_without_labels():
    images = [{"image": item["image"]} for item in _color_images()]
    stack = SliceStack.from_scans(images, label_key=None, image_size=(10, 12))
    assert stack.label.shape == (2, 1, 10, 12)
    assert not stack.label.any()


def test_bytes_among_other_numbers_are_refused():
    images = _color_images([(20, 30), (20, 30)])
    images[1]["image"] = images[1]["image"].float()
    with pytest.raises(ValueError, match=r"Some images are of bytes \(uint8\) and some are not: load all"):
        SliceStack.from_scans(images, label_key="label")
