# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import Compose, ScaleIntensityd
from monai.utils import set_determinism
from scipy import ndimage

from monai_fewshot.transforms import RandAffineElastic, RandAffineElasticd, uniform_noise
from monai_fewshot.transforms.augmentation.affine_elastic import RandAffineElasticD, RandAffineElasticDict

STRONG = {"rotate": 0.5, "translate": 30.0, "shear": 0.5, "zoom": (0.8, 1.3), "alpha": 20.0}


def _image(size=(40, 32), channels=1, seed=0):
    noise = np.random.default_rng(seed).normal(size=(channels, *size))
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 2, 2)).astype(np.float32))


def _label(size=(40, 32)):
    label = torch.zeros(1, *size, dtype=torch.uint8)
    label[:, 8:30, 6:20] = 3
    label[:, 12:20, 15:28] = 200
    return label


def _pair(size=(40, 32)):
    affine = torch.diag(torch.tensor([1.5, 2.0, 8.0, 1.0], dtype=torch.float64))
    return {
        "image": MetaTensor(_image(size), affine=affine, meta={"filename_or_obj": "scan.nii.gz"}),
        "label": MetaTensor(_label(size), affine=affine),
        "name": "scan",
    }


def _transform(**options):
    return RandAffineElasticd(["image", "label"], mode=["bilinear", "nearest"], **options)


def _by_scipy(transform, image, draw, order):
    """The same deformation by SciPy, from the drawn parameters."""
    size = image.shape[1:]
    scale = size[1] / 256
    turn = np.array(
        [[math.cos(draw.rotation), math.sin(draw.rotation)], [-math.sin(draw.rotation), math.cos(draw.rotation)]]
    )
    matrix = turn @ np.array([[1, math.tan(draw.shear)], [0, 1]]) / draw.zoom
    sigma = math.sqrt((transform.sigma * scale) ** 2 + 1 / 12)
    noise = uniform_noise(torch.tensor([draw.noise_seed]), (2, *size))[0].numpy()
    shift = [transform.alpha * scale * ndimage.gaussian_filter(n, sigma, mode="constant") for n in noise]
    center = (np.array(size) - 1) / 2
    points = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij")) - center[:, None, None] + np.stack(shift)
    points = np.einsum("ij,jhw->ihw", matrix, points - np.array(draw.translation)[:, None, None])
    mode = "nearest" if order else "grid-constant"
    places = points + center[:, None, None]
    return np.stack([ndimage.map_coordinates(channel, places, order=order, mode=mode) for channel in image.numpy()])


@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
def test_agrees_with_scipy(size):
    transform = RandAffineElastic(sigma=12.0, **{**STRONG, "alpha": 60.0}).set_random_state(0)
    image = _image(size, channels=2)
    out = transform(image)
    expected = _by_scipy(transform, image, transform._drawn, order=1)
    assert (out - image).abs().mean() > 10 * np.abs(out.numpy() - expected).mean()
    np.testing.assert_allclose(out, expected, atol=0.02 * image.abs().max())
    label = _label(size).float()
    moved = transform(label, mode="nearest", randomize=False).numpy()
    assert (moved != _by_scipy(transform, label, transform._drawn, order=0)).mean() < 0.005
    assert (moved != label.numpy()).mean() > 0.05


def test_draws_fill_their_ranges():
    transform = RandAffineElastic(**STRONG)
    draws = [transform.draw(np.random.RandomState(seed), (2, 128)) for seed in range(400)]
    numbers = np.array([[d.rotation, *d.translation, d.shear, d.zoom] for d in draws])
    half = STRONG["translate"] * 128 / 256
    low, high = [-0.5, -half, -half, -0.5, 0.8], [0.5, half, half, 0.5, 1.3]
    reach = np.array(high) - low
    assert ((numbers.min(0) >= low) & (numbers.min(0) < low + 0.05 * reach)).all()
    assert ((numbers.max(0) <= high) & (numbers.max(0) > high - 0.05 * reach)).all()
    assert np.abs(np.corrcoef(numbers.T) - np.eye(5)).max() < 0.2
    seeds = {draw.noise_seed for draw in draws}
    assert len(seeds) == 400
    assert 0 <= min(seeds) < 0.05 * 2**31
    assert 0.95 * 2**31 < max(seeds) < 2**31


def test_lengths_scale_with_the_width():
    wide, narrow = (RandAffineElastic().draw(np.random.RandomState(3), (16, width)) for width in (256, 64))
    np.testing.assert_allclose(wide.translation, 4 * np.array(narrow.translation))
    assert (wide.rotation, wide.shear, wide.zoom) == (narrow.rotation, narrow.shear, narrow.zoom)


def test_without_elasticity_nothing_is_deformed():
    transform = RandAffineElastic(rotate=0, translate=0, shear=0, zoom=(1, 1), alpha=0).set_random_state(0)
    image = _image()
    torch.testing.assert_close(transform(image), image)


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor, MetaTensor])
def test_output_is_of_the_type_of_the_input(convert):
    transform = RandAffineElastic().set_random_state(1)
    image = convert(_image())
    out = transform(image)
    assert type(out) is type(image)
    assert out.dtype == image.dtype
    assert out.shape == image.shape
    np.testing.assert_array_equal(out, RandAffineElastic().set_random_state(1)(_image()))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
def test_label_values_stay_what_they_are(dtype):
    label = _label().to(dtype)
    for seed in range(5):
        out = RandAffineElastic(**STRONG).set_random_state(seed)(label, mode="nearest")
        assert out.dtype == dtype
        assert set(out.unique().tolist()) <= {0, 3, 200}


def test_probability():
    transform, image = RandAffineElastic(prob=0.3).set_random_state(0), _image((16, 16))
    changed = [not torch.equal(transform(image), image) for _ in range(200)]
    assert 40 < sum(changed) < 80
    pair = _pair()
    untouched = _transform(prob=0.0)(pair)
    assert all(untouched[key] is pair[key] for key in pair)


def test_dictionary_form_moves_all_keys_alike():
    pair = _pair()
    transform = _transform(**STRONG).set_random_state(4)
    out = transform(pair)
    drawn = transform.transform._drawn
    for key, mode in (("image", "bilinear"), ("label", "nearest")):
        assert isinstance(out[key], MetaTensor)
        assert torch.equal(out[key].affine, pair[key].affine)
        expected = RandAffineElastic(**STRONG).apply(pair[key].as_tensor()[None].float(), [drawn], [mode])[0]
        torch.testing.assert_close(out[key].as_tensor(), expected.to(pair[key].dtype))
    assert out["image"].meta["filename_or_obj"] == "scan.nii.gz"
    assert out["name"] == "scan"
    assert set(out["label"].unique().tolist()) == {0, 3, 200}
    assert torch.equal(pair["label"].as_tensor(), _label())


def test_seed_decides():
    first, again, other = (_transform().set_random_state(seed)(_pair())["image"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    transform = _transform().set_random_state(0)
    assert not torch.equal(transform(_pair())["image"], transform(_pair())["image"])


def test_random_state_may_be_given():
    one, two = (_transform().set_random_state(state=np.random.RandomState(5))(_pair())["label"] for _ in range(2))
    assert torch.equal(one, two)


def test_missing_keys():
    data = {"image": _image()}
    with pytest.raises(KeyError, match="label"):
        _transform()(data)
    out = _transform(allow_missing_keys=True).set_random_state(0)(data)
    assert set(out) == {"image"}
    assert not torch.equal(out["image"], data["image"])
    assert _transform(allow_missing_keys=True)({"name": "x"}) == {"name": "x"}


def test_aliases():
    assert RandAffineElasticD is RandAffineElasticDict is RandAffineElasticd


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zoom": (0.0, 1.0)}, "zoom must be a range of positive factors, low first, got (0.0, 1.0)"),
        ({"zoom": (1.2, 0.9)}, "zoom must be a range"),
        ({"rotate": -0.1}, "must not be negative"),
        ({"alpha": -1}, "must not be negative"),
        ({"sigma": 0}, "sigma must be positive"),
    ],
)
def test_impossible_ranges(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        RandAffineElastic(**options)


@pytest.mark.parametrize("shape", [(1, 8, 8, 8), (8, 8)])
def test_images_of_two_dimensions_only(shape):
    message = r"RandAffineElastic transforms 2D images \(C, H, W\), got .* spatial size"
    with pytest.raises(ValueError, match=message):
        RandAffineElastic()(torch.rand(shape))
    with pytest.raises(ValueError, match=message):
        RandAffineElasticd("image")({"image": torch.rand(shape)})


@pytest.mark.parametrize("num_workers", [0, 2])
def test_serves_in_an_ordinary_pipeline(num_workers):
    pipeline = Compose([ScaleIntensityd("image"), _transform(**STRONG)])

    def epochs():
        set_determinism(seed=0)
        dataset = CacheDataset([_pair() for _ in range(4)], pipeline, progress=False)
        loader = DataLoader(dataset, batch_size=2, num_workers=num_workers)
        return [torch.cat([batch["image"].as_tensor() for batch in loader]) for _ in range(2)]

    try:
        first, second = epochs()
        again = epochs()
    finally:
        set_determinism(seed=None)
    assert first.shape == (4, 1, 40, 32)
    assert not torch.equal(first, second)
    assert len({item.sum().item() for item in first}) == 4
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])


@pytest.mark.parametrize("flip", [(True, False), (False, True), (True, True)])
def test_flips_are_of_the_content_before_all_else(flip):
    transform = RandAffineElastic(**STRONG)
    image = _image()[None]
    draw = transform.draw(np.random.RandomState(0), image.shape[2:])
    axes = [axis for axis, flipped in zip((2, 3), flip, strict=True) if flipped]
    out = transform.apply(image, [draw._replace(flip=flip)], ["bilinear"])
    torch.testing.assert_close(out, transform.apply(image.flip(axes), [draw], ["bilinear"]), atol=1e-4, rtol=0)


def test_flips_and_rotations_come_as_often_as_asked():
    transform = RandAffineElastic(flip=(0.25, 0.75), rotate_prob=0.5)
    random = np.random.RandomState(0)
    draws = [transform.draw(random, (64, 64)) for _ in range(2000)]
    assert np.mean([draw.flip for draw in draws], axis=0) == pytest.approx([0.25, 0.75], abs=0.03)
    assert np.mean([draw.rotation != 0 for draw in draws]) == pytest.approx(0.5, abs=0.03)
    assert {draw.flip for draw in draws} == {(a, b) for a in (False, True) for b in (False, True)}
