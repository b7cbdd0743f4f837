# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import KeepLargestConnectedComponent
from scipy import ndimage

from monai_fewshot.transforms import ClassParts, KeepClassPartsd, KeepSupportComponents, KeepSupportComponentsd


def scattered(seed, shape=(24, 20, 12), classes=3):
    """A label map of many components of each class."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(10, *shape)), (0, 1, 1, 1))
    label = torch.from_numpy(noise.argmax(0))[None]
    return torch.where(label > classes, 0, label)


def blocks(counts, shape=(24, 20, 12)):
    """A label map of so many components of each class."""
    label = torch.zeros(1, *shape, dtype=torch.int64)
    for number, count in enumerate(counts, 1):
        for place in range(count):
            label[0, 5 * place : 5 * place + 3, 6 * number - 5 : 6 * number - 2] = number
    return label


def largest(mask, count):
    """Plain reference: the so many largest components that share faces."""
    labeled, number = ndimage.label(mask)
    sizes = ndimage.sum_labels(mask, labeled, np.arange(1, number + 1))
    return np.isin(labeled, np.argsort(-sizes, kind="stable")[:count] + 1)


@pytest.mark.parametrize("seed", range(3))
def test_with_one_component_a_class_it_is_monais(seed):
    label, support = scattered(seed), blocks((1, 1, 1))[None]
    found = KeepSupportComponents()(label, support)
    assert torch.equal(found, KeepLargestConnectedComponent(is_onehot=False, connectivity=1)(label.clone()))
    masks = torch.cat([label == number for number in (1, 2, 3)]).float()
    monais = KeepLargestConnectedComponent(applied_labels=[0, 1, 2], is_onehot=True, connectivity=1)(masks)
    assert torch.equal(KeepSupportComponents()(masks, support), monais)
    assert (found != label).any()


def test_a_class_keeps_as_many_components_as_the_support_shows():
    label = scattered(1)
    supports = [blocks((1, 3, 0)), blocks((2, 1, 0), (24, 20, 9))]
    found = KeepSupportComponents()(label, supports)[0].numpy()
    masks = KeepSupportComponents()(torch.cat([label == number for number in (1, 2, 3)]), supports)
    for number, count in ((1, 2), (2, 3), (3, 1)):
        expected = largest(label[0].numpy() == number, count)
        assert ndimage.label(expected)[1] == count
        np.testing.assert_array_equal(found == number, expected)
        np.testing.assert_array_equal(masks[number - 1], expected)


def test_one_mask_is_the_label_map_of_one_class():
    mask = scattered(2, classes=1).float()
    found = KeepSupportComponents()(mask, blocks((2,))[None, None])
    np.testing.assert_array_equal(found[0].numpy() > 0, largest(mask[0].numpy() > 0, 2))
    assert not KeepSupportComponents()(torch.zeros_like(mask), blocks((2,))[None]).any()


def test_a_dictionary_holds_the_support_of_an_episode():
    affine = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    label = MetaTensor(scattered(3), affine=affine)
    data = {"pred": label, "support_label": [blocks((1, 2, 2)), blocks((1, 1, 1))]}
    found = KeepSupportComponentsd("pred")(data)
    assert torch.equal(found["pred"].affine, affine)
    assert torch.equal(found["pred"], KeepSupportComponents()(label, data["support_label"]))
    assert data["pred"] is label
    assert not torch.equal(found["pred"], label)


def organs(at, false=None):
    """Three classes as blocks at places, class 2 also as a larger block elsewhere, and their affine."""
    label = torch.zeros(1, 40, 40, 20, dtype=torch.int64)
    for number, (x, y, z) in at.items():
        label[0, x : x + 4, y : y + 4, z : z + 4] = number
    if false is not None:
        x, y, z = false
        label[0, x : x + 6, y : y + 6, z : z + 6] = 2
    return label, torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0], dtype=torch.float64))


PLACES = {1: (5, 5, 5), 2: (20, 8, 6), 3: (12, 25, 9)}


def test_by_place_the_component_where_the_class_lay_wins_over_a_larger_one():
    support, affine = organs(PLACES)
    moved = {number: (x + 6, y + 4, z + 3) for number, (x, y, z) in PLACES.items()}
    label, truth = organs(moved, false=(3, 32, 1))[0], organs(moved)[0]
    keep = KeepSupportComponents(by_place=True)
    assert torch.equal(keep(label, support[None], affine, affine[None]), truth)
    masks = torch.cat([label == number for number in (1, 2, 3)]).float()
    kept = keep(masks, support[None], affine, affine[None])
    assert torch.equal(kept > 0, torch.cat([truth == number for number in (1, 2, 3)]))
    assert not torch.equal(KeepSupportComponents()(label, support[None]), truth)


def test_places_are_those_in_space_and_other_classes_may_be_wrong():
    """The scan is flipped, and one of its other classes lies where it should not."""
    support, affine = organs(PLACES)
    moved = {**{number: (x + 6, y + 4, z + 3) for number, (x, y, z) in PLACES.items()}, 3: (30, 2, 1)}
    label, truth = organs(moved, false=(3, 32, 1))[0], organs(moved)[0]
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    found = KeepSupportComponents(by_place=True)(label.flip(1), support[None], affine @ flip, affine[None])
    assert torch.equal(found, truth.flip(1))


def test_without_another_class_the_largest_component_stays():
    support, affine = organs({2: PLACES[2]})
    label = organs({2: PLACES[2]}, false=(3, 32, 1))[0]
    found = KeepSupportComponents(by_place=True)(label, support[None], affine, affine[None])
    assert torch.equal(found, KeepSupportComponents()(label, support[None]))
    assert not torch.equal(found, support)


def test_parts_are_noted_and_kept_without_the_support():
    support, affine = organs(PLACES)
    other = organs({number: (x + 2, y, z) for number, (x, y, z) in PLACES.items()}, false=(30, 32, 1))[0]
    both = ClassParts.of([support, other], [affine, affine])
    assert both.counts == {1: 1, 2: 2, 3: 1}
    parts = ClassParts.of(support, [affine])
    first, second = (np.array(parts.centers[number]) for number in (1, 2))
    np.testing.assert_allclose(second - first, [30, 6, 3])
    np.testing.assert_allclose(np.mean(list(parts.centers.values()), axis=0), 0, atol=1e-9)
    label = organs(PLACES, false=(3, 32, 1))[0]
    found = KeepClassPartsd("pred", ClassParts(**asdict(parts)))({"pred": MetaTensor(label, affine=affine)})["pred"]
    assert torch.equal(found.as_tensor(), support)
    plain = ClassParts(parts.counts).keep(label, affine)
    assert torch.equal(plain, KeepSupportComponents()(label, support[None]))
    assert not torch.equal(plain, support)
