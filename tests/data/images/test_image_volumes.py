# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import DataLoader, MetaTensor, decollate_batch
from monai.transforms import AsDiscreted, Compose, SaveImaged
from PIL import Image
from torch import nn

from monai_fewshot.data import (
    IMAGE_AFFINE,
    ImageAsVolumed,
    ImageMaskWriter,
    ScanEpisodes,
    image_reading,
    load_image_set,
    pending_scans,
)
from monai_fewshot.inferers import FewShotVolumeInferer
from monai_fewshot.networks.nets import ALPNet
from monai_fewshot.visualize.overlay import orient_slice

SIZES = {"a": (40, 56), "b": (64, 64), "c": (51, 37), "d": (40, 56)}


@pytest.fixture
def folder(tmp_path):
    """Dark ellipses on light skin, in images of different sizes, with masks of 0 and 255."""
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for seed, (name, (rows, columns)) in enumerate(SIZES.items()):
        random = np.random.default_rng(seed)
        row, column = np.mgrid[:rows, :columns]
        inside = ((row - 0.4 * rows) / (0.25 * rows)) ** 2 + ((column - 0.6 * columns) / (0.2 * columns)) ** 2 < 1
        color = np.where(inside[..., None], (90, 50, 40), (220, 180, 170)) + random.normal(0, 6, (rows, columns, 3))
        Image.fromarray(color.clip(0, 255).astype(np.uint8)).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(255 * inside.astype(np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


@pytest.fixture
def network():
    """Prototypes of colors, a little smoothed."""
    encoder = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
    with torch.no_grad():
        encoder.weight.zero_()
        for channel in range(3):
            encoder.weight[channel, channel] = 1 / 9
            encoder.weight[3 + channel, channel, 1, 1] = 0.5
    return ALPNet(2, encoder).eval()


def _centered(item):
    item["image"] = item["image"].float() / 127.5 - 1
    return item


READING = Compose([image_reading(), ImageAsVolumed(["image", "label"], allow_missing_keys=True), _centered])


def _segment(images, supports, network, output_dir, num_classes=1):
    save = Compose(
        [
            AsDiscreted("pred", argmax=True),
            SaveImaged(
                "pred",
                output_dir=output_dir,
                output_postfix="seg",
                output_ext=".png",
                output_dtype=np.uint8,
                writer=ImageMaskWriter,
                separate_folder=False,
                resample=False,
                print_log=False,
            ),
        ]
    )
    inferer = FewShotVolumeInferer("whole_volume", num_classes, image_size=(64, 64))
    margins = {}
    for batch in DataLoader(ScanEpisodes(images, supports, READING), batch_size=1):
        with torch.no_grad():
            result = inferer(batch["image"], network, batch["support_image"], batch["support_label"])
        margins[batch["name"][0]] = result[0].as_tensor()
        for item in decollate_batch({**batch, "pred": result}):
            save(item)
    return margins


def test_an_image_is_a_volume_of_one_slice():
    image = MetaTensor(torch.rand(3, 4, 5), meta={"filename_or_obj": "x.png"})
    item = ImageAsVolumed(["image", "label"])({"image": image, "label": torch.ones(1, 4, 5), "name": "x"})
    assert item["image"].shape == (3, 4, 5, 1)
    assert item["label"].shape == (1, 4, 5, 1)
    assert torch.equal(item["image"].as_tensor()[..., 0], image.as_tensor())
    assert item["image"].meta["filename_or_obj"] == "x.png"
    assert item["name"] == "x"
    np.testing.assert_array_equal(item["image"].affine, IMAGE_AFFINE)
    np.testing.assert_array_equal(np.abs(np.linalg.det(item["label"].affine)), 1)
    with pytest.raises(KeyError):
        ImageAsVolumed(["image", "label"])({"image": image})


@pytest.mark.parametrize("supports", [["a"], ["b"], ["a", "d"], ["b", "c", "d"]])
def test_images_of_any_size_are_segmented_after_one_or_several(folder, network, supports):
    image_set = load_image_set(folder)
    examples = image_set.named(supports).images
    output_dir = folder / "out"
    _segment(image_set.images, examples, network, output_dir)
    for name, size in SIZES.items():
        written = Image.open(output_dir / f"{name}_seg.png")
        assert written.mode == "L"
        mask, truth = np.asarray(written), np.asarray(Image.open(folder / "masks" / f"{name}.png"))
        assert mask.shape == size
        assert set(np.unique(mask)) == {0, 255}
        assert ((mask > 0) & (truth > 0)).sum() / ((mask > 0) | (truth > 0)).sum() > 0.8


def _resized(image, size, mode):
    options = {"mode": "bilinear", "antialias": True} if mode == "bilinear" else {"mode": "nearest-exact"}
    image = image[..., 0].as_tensor().float()[None]
    return image if image.shape[2:] == size else F.interpolate(image, size, **options)


@pytest.mark.parametrize("supports", [["a"], ["a", "d"], ["b", "c", "d"]])
@torch.no_grad()
def test_the_margins_are_those_of_the_network_itself(folder, network, supports):
    image_set = load_image_set(folder)
    examples = [READING(dict(image)) for image in image_set.named(supports).images]
    margins = _segment(image_set.images, image_set.named(supports).images, network, folder / "out")
    shots = torch.cat([_resized(example["image"], (64, 64), "bilinear") for example in examples])[None]
    masks = torch.cat([_resized(example["label"], (64, 64), "nearest") for example in examples])[None]
    context = network.encode_support(shots, masks.long())
    for image in image_set.images:
        query = READING(dict(image))["image"]
        features = network.encode_query(_resized(query, (64, 64), "bilinear"))
        logits = network.classify(features, context, query.shape[1:3])[0]
        assert margins[image["name"]].shape == (2, *SIZES[image["name"]], 1)
        torch.testing.assert_close(margins[image["name"]][1, ..., 0], logits[1] - logits[0], rtol=1e-4, atol=1e-4)


def test_a_second_example_counts(folder, network):
    images = load_image_set(folder).images
    one = _segment(images[1:2], images[:1], network, folder / "out")["b"]
    both = _segment(images[1:2], [images[0], images[2]], network, folder / "out")["b"]
    other = _segment(images[1:2], images[2:3], network, folder / "out")["b"]
    assert not torch.allclose(one, both, atol=1e-3)
    assert not torch.allclose(other, both, atol=1e-3)


def test_an_interrupted_run_goes_on(folder, network):
    images = load_image_set(folder).images
    output_dir = folder / "out"
    _segment(images[:2], images[:1], network, output_dir)
    assert [i["name"] for i in pending_scans(images, output_dir, extension=".png")] == ["c", "d"]
    _segment(pending_scans(images, output_dir, extension=".png"), images[:1], network, output_dir)
    assert pending_scans(images, output_dir, extension=".png") == []


def test_pictures_show_rows_from_the_top(folder):
    item = READING(dict(load_image_set(folder).images[0]))
    rows = np.asarray(Image.open(folder / "images" / "a.png"))
    shown, aspect = orient_slice(np.moveaxis(item["image"].numpy()[..., 0], 0, -1), item["image"].affine.numpy())
    np.testing.assert_allclose(shown, rows / 127.5 - 1, atol=1e-6)
    assert aspect == 1
