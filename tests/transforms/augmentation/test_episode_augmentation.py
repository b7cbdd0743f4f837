# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import AdjustContrastd, Compose
from scipy import ndimage

from monai_fewshot.transforms import EpisodeAugmentation, RandAffineElastic, RandAffineElasticd


def _episode(batch=3, channels=1, size=(30, 36)):
    noise = np.random.default_rng(0).normal(size=(batch, channels, *size))
    image = torch.from_numpy(ndimage.gaussian_filter(noise, (0, 0, 2, 2)).astype(np.float32))
    label = torch.zeros(batch, 1, *size)
    label[:, :, 5:20, 8:30] = 1
    label[:, :, 12:18, 10:14] = 2
    return image, label


def test_a_batch_equals_the_transforms_of_single_items():
    image, label = _episode()
    augmentation = EpisodeAugmentation(RandAffineElastic())
    draws = []
    for seed in range(3):
        random = np.random.RandomState(seed)
        random.random_sample(2)  # whether the single transform, and the array form in it, are applied at all
        draws.append(augmentation.draw(random, image.shape[2:]))
    images, labels = augmentation(image, label, draws)
    for i, draw in enumerate(draws):
        geometry = RandAffineElasticd(["image", "label"], mode=["bilinear", "nearest"])
        single = Compose([geometry, AdjustContrastd("image", gamma=draw.gamma)])
        geometry.set_random_state(state=np.random.RandomState(i))
        out = single({"image": MetaTensor(image[i]), "label": MetaTensor(label[i])})
        torch.testing.assert_close(images[i], out["image"].as_tensor(), atol=1e-5, rtol=1e-5)
        assert torch.equal(labels[i], out["label"].as_tensor())


def test_each_item_has_its_own_draw_and_labels_stay_integral():
    image, label = _episode(batch=1)
    image, label = image.expand(4, -1, -1, -1), label.expand(4, -1, -1, -1)
    augmentation = EpisodeAugmentation(RandAffineElastic())
    random = np.random.RandomState(0)
    draws = [augmentation.draw(random, image.shape[2:]) for _ in range(4)]
    images, labels = augmentation(image, label, draws)
    assert images.shape == image.shape
    assert labels.shape == label.shape
    assert set(labels.unique().tolist()) == {0, 1, 2}
    for one in range(4):
        for two in range(one):
            assert not torch.allclose(images[one], images[two], atol=1e-3)
            assert not torch.equal(labels[one], labels[two])


def test_one_motion_for_all_channels():
    image, label = _episode(channels=1)
    colors = torch.cat([image, image], dim=1)
    augmentation = EpisodeAugmentation(RandAffineElastic(), gamma=None)
    draws = [augmentation.draw(np.random.RandomState(seed), image.shape[2:]) for seed in range(3)]
    out, _ = augmentation(colors, label, draws)
    assert torch.equal(out[:, 0], out[:, 1])


def test_intensity_alone_leaves_geometry_and_label():
    image, label = _episode()
    augmentation = EpisodeAugmentation(geometry=None, gamma=(0.5, 1.5))
    draws = [augmentation.draw(np.random.RandomState(seed), image.shape[2:]) for seed in range(3)]
    assert all(0.5 <= draw.gamma <= 1.5 and draw.warp is None for draw in draws)
    out, same = augmentation(image, label, draws)
    assert same is label
    assert not torch.allclose(out, image)
    assert (out.flatten(1).gather(1, image.flatten(1).argsort(1)).diff(dim=1) >= 0).all()


def test_geometry_alone_keeps_intensities():
    image, label = _episode()
    augmentation = EpisodeAugmentation(RandAffineElastic(alpha=0, rotate=0, shear=0, translate=0, zoom=(1, 1)), None)
    draws = [augmentation.draw(np.random.RandomState(0), image.shape[2:])] * 3
    assert [draw.gamma for draw in draws] == [1.0] * 3
    out, same = augmentation(image, label, draws)
    torch.testing.assert_close(out, image)
    assert torch.equal(same, label)


def test_nothing_at_all():
    image, label = _episode()
    augmentation = EpisodeAugmentation(None, None)
    out = augmentation(image, label, [augmentation.draw(np.random.RandomState(0), (30, 36))] * 3)
    assert out[0] is image
    assert out[1] is label


def test_probability_of_the_geometry():
    image, label = _episode(batch=1)
    image, label = image.expand(60, -1, -1, -1), label.expand(60, -1, -1, -1)
    augmentation, random = EpisodeAugmentation(RandAffineElastic(prob=0.5), gamma=None), np.random.RandomState(0)
    draws = [augmentation.draw(random, image.shape[2:]) for _ in range(60)]
    out, moved = augmentation(image, label, draws)
    changed = [not torch.equal(one, other) for one, other in zip(out, image, strict=True)]
    assert changed == [draw.warp is not None for draw in draws]
    assert changed == [not torch.equal(one, other) for one, other in zip(moved, label, strict=True)]
    assert 18 < sum(changed) < 42


@pytest.mark.parametrize("gamma", [(0.0, 1.0), (1.5, 0.5), (-1.0, 1.0)])
def test_impossible_gamma(gamma):
    with pytest.raises(
        ValueError, match=re.escape(f"gamma must be a range of positive exponents, low first, got {gamma}")
    ):
        EpisodeAugmentation(gamma=gamma)
