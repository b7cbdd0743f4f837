# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage
from monai.utils import OptionalImportError
from scipy.ndimage import gaussian_filter, label
from skimage.segmentation import felzenszwalb

from monai_fewshot.transforms import SupervoxelLabels, SupervoxelLabelsd
from monai_fewshot.transforms.pseudo_labels.felzenszwalb_volume import (
    compiled_merge,
    felzenszwalb_volume,
    merge_sorted_edges,
    voxel_edges,
)


def same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    pairs = np.unique(np.stack([first.ravel(), second.ravel()]), axis=1)
    return pairs.shape[1] == len(np.unique(first)) == len(np.unique(second))


def texture(shape: tuple[int, ...], amplitude: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.standard_normal(shape), (0, 2, 2, 1))
    return amplitude * smooth + 0.3 * rng.standard_normal(shape)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("scale", "min_size", "sigma", "amplitude"),
    [(1, 50, 1, 100), (100, 20, 0, 1), (3000, 5, 0.8, 1), (300, 1, 0, 1), (1, 400, 1, 1000)],
)
def test_one_slice_is_divided_as_scikit_image_does(channels, scale, min_size, sigma, amplitude):
    image = texture((channels, 70, 50, 1), amplitude)
    labels = felzenszwalb_volume(image, np.ones((70, 50, 1), bool), scale, min_size, sigma, (1.25, 1.25, 8.0))
    expected = felzenszwalb(image[..., 0], scale=scale, min_size=min_size, sigma=sigma, channel_axis=0)
    assert expected.max() > 0
    assert same_partition(labels[..., 0], expected)


def test_edges_join_26_neighbors_with_weights_by_distance():
    image = texture((2, 4, 5, 3), 1.0)
    foreground = np.random.default_rng(2).random((4, 5, 3)) > 0.3
    spacing = np.array([1.5, 1.5, 6.0])
    number = np.cumsum(foreground).reshape(foreground.shape) - 1
    expected = {}
    for voxel in np.argwhere(foreground):
        for offset in product((-1, 0, 1), repeat=3):
            other = voxel + offset
            inside = any(offset) and (other >= 0).all() and (other < foreground.shape).all()
            if inside and foreground[tuple(other)]:
                farther = np.linalg.norm(offset * spacing / 1.5) / np.linalg.norm(offset)
                difference = np.linalg.norm(image[(slice(None), *voxel)] - image[(slice(None), *other)])
                pair = frozenset((int(number[tuple(voxel)]), int(number[tuple(other)])))
                expected[pair] = farther * difference
    firsts, seconds, weights = voxel_edges(image, foreground, spacing)
    found = {frozenset((int(a), int(b))): weight for a, b, weight in zip(firsts, seconds, weights, strict=True)}
    assert len(firsts) == len(found) == len(expected)
    assert all(found[pair] == pytest.approx(weight, rel=1e-12) for pair, weight in expected.items())


def merge_sets(firsts, seconds, weights, count, scale, min_size):
    """The algorithm on plain sets."""
    regions = [{node} for node in range(count)]
    inner = dict.fromkeys(range(count), 0.0)
    for small in (False, True):
        for a, b, weight in zip(firsts, seconds, weights, strict=True):
            one, two = regions[a], regions[b]
            if one is two:
                continue
            bound = min(inner[min(one)] + scale / len(one), inner[min(two)] + scale / len(two))
            if min(len(one), len(two)) < min_size if small else weight < bound:
                union = one | two
                inner[min(union)] = weight
                for node in union:
                    regions[node] = union
    return np.array([min(region) for region in regions])


@pytest.mark.parametrize(("scale", "min_size"), [(0.5, 1), (3.0, 4), (0.01, 15)])
def test_merging_equals_that_of_plain_sets(scale, min_size):
    image = texture((1, 6, 7, 4), 2.0)
    firsts, seconds, weights = voxel_edges(image, np.ones((6, 7, 4), bool), (1, 1, 3))
    order = np.argsort(weights)
    arguments = firsts[order], seconds[order], weights[order], 6 * 7 * 4, scale, min_size
    expected = merge_sets(*arguments)
    assert 1 < len(np.unique(expected)) < 168
    assert same_partition(merge_sorted_edges(*arguments), expected)
    assert (compiled_merge()(*arguments) == merge_sorted_edges(*arguments)).all()


def phantom() -> np.ndarray:
    """Two objects of 100, in slices 1 to 4 and 3 to 6, in a body of 40 in all slices but the last."""
    image = np.zeros((40, 40, 8))
    image[4:36, 4:36, :7] = 40
    image[8:18, 8:18, 1:5] = 100
    image[22:32, 22:32, 3:7] = 100
    noise = np.random.default_rng(0).standard_normal(image.shape)
    return (image + np.where(image > 0, noise, 0))[None].astype(np.float32)


def test_ids_run_over_the_volume_and_follow_objects():
    labels = SupervoxelLabels(min_size=200, threshold=20, spacing=(1, 1, 4))(phantom())
    assert labels.dtype == np.int32
    areas = np.bincount(labels.ravel())
    assert len(areas) >= 4
    assert (areas[1:] >= 200).all()
    for corner, slices in ((8, slice(1, 5)), (22, slice(3, 7))):
        inside = labels[0, corner : corner + 10, corner : corner + 10, slices]
        number = np.bincount(inside.ravel()).argmax()
        assert number > 0
        assert (labels == number).sum() == (inside == number).sum() == inside.size
    assert ((labels[0, ..., :7] > 0) == (phantom()[0, ..., :7] > 20)).all()
    assert not labels[..., 7].any()


def test_foreground_components_below_min_area_are_dropped():
    image = np.zeros((1, 20, 20, 2))
    image[0, :10, :10, 0] = 100 + np.arange(10)
    image[0, 15:18, 15:18, 1] = 100 + np.arange(3)
    assert SupervoxelLabels(min_size=40, threshold=50, spacing=(1, 1, 1))(image).max() == 1
    assert SupervoxelLabels(min_size=40, min_area=9, threshold=50, spacing=(1, 1, 1))(image).max() == 2


def test_spacing_comes_from_the_affine():
    volume = texture((1, 24, 24, 6), 30.0)
    affine = torch.diag(torch.tensor([1.25, 1.25, 10.0, 1.0], dtype=torch.float64))
    arguments = {"min_size": 60, "sigma": 1.0, "threshold": -np.inf}
    labels = SupervoxelLabelsd("image", **arguments)({"image": MetaTensor(volume, affine=affine)})["pseudo_label"]
    assert torch.equal(labels.affine, affine)
    assert (labels.numpy() == SupervoxelLabels(spacing=(1, 1, 8), **arguments)(volume)).all()
    assert (labels.numpy() != SupervoxelLabels(spacing=(1, 1, 1), **arguments)(volume)).any()
    single = SupervoxelLabels(**arguments)(volume[..., 0])
    assert (SupervoxelLabels(**arguments)(MetaTensor(volume[..., 0], affine=affine)).numpy() == single).all()
    assert (SupervoxelLabels(**arguments)(MetaTensor(volume[..., 0], affine=torch.eye(3))).numpy() == single).all()


def test_cache_tells_spacings_apart(tmp_path):
    volume = texture((1, 24, 24, 6), 30.0)
    expected = {}
    for depth in (1, 8):
        source = SupervoxelLabels(min_size=60, threshold=-np.inf, spacing=(1, 1, depth), cache_dir=tmp_path)
        expected[depth] = source(volume)
        assert (source(volume) == expected[depth]).all()
    assert (expected[1] != expected[8]).any()
    assert len(list(tmp_path.iterdir())) == 2


def test_constants_of_the_algorithm_are_in_the_key_of_the_cache(tmp_path, monkeypatch):
    source = SupervoxelLabels(min_size=60, spacing=(1, 1, 1), cache_dir=tmp_path)
    source(texture((1, 24, 24, 6), 30.0))
    monkeypatch.setattr("monai_fewshot.transforms.pseudo_labels.felzenszwalb_volume.HALF_NEIGHBORS", [(0, 1, 0)])
    source(texture((1, 24, 24, 6), 30.0))
    assert len(list(tmp_path.iterdir())) == 2


def test_constant_volume_has_no_supervoxels():
    assert not SupervoxelLabels(spacing=(1, 1, 1))(np.full((1, 8, 8, 4), 100.0)).any()


def test_wrong_arguments(monkeypatch):
    with pytest.raises(ValueError, match="spacing must be three positive numbers, got \\(1, 1\\)"):
        SupervoxelLabels(spacing=(1, 1))
    with pytest.raises(ValueError, match="spacing is unknown"):
        SupervoxelLabels()(np.zeros((1, 4, 4, 4)))
    with pytest.raises(ValueError, match="min_size 1 or greater"):
        SupervoxelLabels(min_size=0)
    compiled_merge.cache_clear()
    monkeypatch.setattr(
        "monai_fewshot.transforms.pseudo_labels.felzenszwalb_volume.optional_import",
        lambda name: (None, False),
        raising=True,
    )
    with pytest.raises(OptionalImportError, match=r"pip install 'monai_fewshot\[supervoxels\]'"):
        SupervoxelLabels()


def test_real_scan(data_dir):
    image = LoadImage(ensure_channel_first=True)(data_dir / "mscmr_bssfp" / "imagesTr" / "cmr_02.nii.gz")[..., 4:9]
    labels = SupervoxelLabels(min_size=1000, threshold=50)(image)
    areas = np.bincount(labels.numpy().ravel())[1:]
    assert 10 < len(areas) < 120
    assert areas.min() >= 250
    assert areas.sum() > 0.98 * (SupervoxelLabels(threshold=50).body_mask(image) > 0).sum()
    _, pieces = label((labels[0].numpy() == 1), np.ones((3, 3, 3)))
    assert pieces == 1
