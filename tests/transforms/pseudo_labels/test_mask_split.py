# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from monai_fewshot.transforms import MaskSplitDraw, RandMaskSplit, RandMaskSplitd

SIZE = (60, 80)


def _masks(count=8, size=SIZE):
    random = np.random.default_rng(0)
    fields = ndimage.gaussian_filter(random.normal(size=(count, *size)), (0, 9, 9))
    return torch.from_numpy(fields > np.quantile(fields, 0.6, axis=(1, 2), keepdims=True)).float().unsqueeze(1)


def _halves_by_loop(mask, draw):
    """Split a mask (H, W) pixel by pixel; returns who is in the first half (left or upper)."""
    mask = mask if draw.vertical else mask.T
    total, reached, border = mask.sum(), 0, 0
    for column in range(mask.shape[1]):
        with_it = reached + mask[:, column].sum()
        if 2 * with_it >= total:
            border = column if 2 * with_it - total <= total - 2 * reached else column - 1
            break
        reached = with_it
    first = np.zeros(mask.shape, bool)
    for row in range(mask.shape[0]):
        shift = draw.slope * (1 - 2 * row / (mask.shape[0] - 1))
        for column in range(mask.shape[1]):
            first[row, column] = mask[row, column] and column <= border + 0.5 + shift
    return first if draw.vertical else first.T


@pytest.mark.parametrize("mode", ["vertical", "horizontal", "mixed"])
@pytest.mark.parametrize("slope", [0.0, 40.0])
def test_agrees_with_a_plain_loop(mode, slope):
    transform, random, masks = RandMaskSplit(mode, slope, min_area=1), np.random.RandomState(0), _masks()
    draws = [transform.draw(random, SIZE) for _ in masks]
    support, query = transform.apply(masks, draws)
    for mask, draw, own, other in zip(masks[:, 0].numpy() > 0, draws, support[:, 0], query[:, 0], strict=True):
        first = _halves_by_loop(mask, draw)
        of_query = first if draw.swap else mask & ~first
        assert np.array_equal(other.numpy() == 1, of_query)
        assert np.array_equal(own.numpy() == 1, mask & ~of_query)


@pytest.mark.parametrize("mode", ["vertical", "horizontal", "mixed"])
@pytest.mark.parametrize("slope", [0.0, 40.0])
def test_halves_are_disjoint_and_make_up_the_mask(mode, slope):
    transform, random, masks = RandMaskSplit(mode, slope), np.random.RandomState(1), _masks()
    support, query = transform.apply(masks, [transform.draw(random, SIZE) for _ in masks])
    own, other = support == 1, query == 1
    assert not (own & other).any()
    assert torch.equal(own | other, masks > 0)
    assert torch.equal(query == 255, own)
    assert ((support == 0) | own).all()
    assert ((query == 0) == (masks == 0)).all()


@pytest.mark.parametrize("vertical", [True, False])
def test_without_slope_areas_differ_by_no_more_than_the_line(vertical):
    transform, masks = RandMaskSplit(slope=0, min_area=1), _masks(40)
    support, query = transform.apply(masks, [MaskSplitDraw(True, vertical, 0.0, False)] * len(masks))
    own, other = (support == 1)[:, 0], (query == 1)[:, 0]
    difference = (own.sum((1, 2)) - other.sum((1, 2))).abs()
    lines = masks[:, 0].sum(1 if vertical else 2)
    for number in range(len(masks)):
        last = own[number].any(0 if vertical else 1).nonzero().max()
        assert difference[number] <= max(lines[number, last], lines[number, min(last + 1, lines.shape[1] - 1)])


def test_the_first_half_is_the_supports_unless_they_change_sides():
    mask = torch.ones(1, 1, 8, 8)
    for vertical, inside in ((True, (slice(None), slice(0, 4))), (False, (slice(0, 4), slice(None)))):
        support, query = RandMaskSplit(min_area=1).apply(mask, [MaskSplitDraw(True, vertical, 0.0, False)])
        assert support[0, 0][inside].all()
        assert support.sum() == 32
        swapped = RandMaskSplit(min_area=1).apply(mask, [MaskSplitDraw(True, vertical, 0.0, True)])
        assert torch.equal(swapped[0] == 1, query == 1)
        assert torch.equal(swapped[1] == 1, support == 1)


def test_a_slope_turns_the_line_about_the_middle():
    mask = torch.ones(1, 1, 41, 40)
    support, _ = RandMaskSplit(min_area=1).apply(mask, [MaskSplitDraw(True, True, 10.0, False)])
    widths = support[0, 0].sum(1)
    assert (widths[0], widths[20], widths[40]) == (30, 20, 10)
    assert (widths.diff() <= 0).all()


def test_small_halves_are_split_straight_or_not_at_all():
    mask = torch.zeros(2, 1, 40, 40)
    mask[0, :, 10:30, 16:24] = 1
    mask[1, :, 10:14, 16:20] = 1
    transform = RandMaskSplit(slope=400, min_area=1000)
    assert transform.min_area * 40 * 40 / 400**2 == 10
    support, query = transform.apply(mask, [MaskSplitDraw(True, True, 30.0, False)] * 2)
    assert (support[0] == 1).sum() == (query[0] == 1).sum() == 80
    assert torch.equal(support[1], mask[1])
    assert torch.equal(query[1], mask[1])


def test_no_split_gives_both_the_whole_mask():
    masks = _masks()
    support, query = RandMaskSplit(prob=0).apply(masks, [MaskSplitDraw(False, True, 0.0, False)] * len(masks))
    assert torch.equal(support, masks)
    assert torch.equal(query, masks)


def test_draws_come_as_often_and_as_far_as_asked():
    random = np.random.RandomState(0)

    def drawn(*arguments, **options):
        transform = RandMaskSplit(*arguments, **options)
        return np.array([transform.draw(random, (200, 200)) for _ in range(2000)])

    draws = drawn("mixed", 40.0, True, 0.3)
    assert draws[:, 0].mean() == pytest.approx(0.3, abs=0.03)
    assert draws[:, 1].mean() == pytest.approx(0.5, abs=0.03)
    assert np.abs(draws[:, 2]).max() == pytest.approx(20, rel=0.01)
    assert draws[:, 3].mean() == pytest.approx(0.5, abs=0.03)
    assert drawn("vertical", alternate=False)[:, [1, 3]].mean(0).tolist() == [1, 0]
    assert drawn("horizontal")[:, 1].max() == 0


def test_one_mask_equals_its_place_in_a_batch():
    transform, masks = RandMaskSplit("mixed").set_random_state(5), _masks()
    draws = [transform.draw(np.random.RandomState(s), SIZE) for s in range(len(masks))]
    support, query = transform.apply(masks, draws)
    for number, draw in enumerate(draws):
        transform._drawn = draw
        one = transform(masks[number], randomize=False)
        assert torch.equal(one[0], support[number])
        assert torch.equal(one[1], query[number])


def test_the_dictionary_form_keeps_types_and_writes_both_labels():
    mask = _masks(1)[0]
    item = {"label": MetaTensor(mask.to(torch.uint8)), "name": "x"}
    out = RandMaskSplitd("label", mode="mixed").set_random_state(3)(item)
    expected = RandMaskSplit("mixed").set_random_state(3)
    own, other = expected(mask)
    assert isinstance(out["label"], MetaTensor)
    assert out["label"].dtype == torch.uint8
    assert torch.equal(out["label"].as_tensor().float(), other)
    assert torch.equal(out["support_label"].as_tensor().float(), own)
    assert out["name"] == "x"


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.int64, np.float32])
def test_no_type_of_mask_loses_the_ignored_half(dtype):
    transform = RandMaskSplit(slope=0, alternate=False)
    for mask in (np.ones((1, 8, 8), dtype), torch.from_numpy(np.ones((1, 8, 8), dtype))):
        support, query = (np.asarray(label) for label in transform(mask))
        assert type(transform(mask)[0]) is type(mask)
        assert support.sum() == 32
        assert (query == 1).sum() == (query == 255).sum() == 32
        assert support.dtype == query.dtype == (np.float32 if dtype is np.float32 else np.uint8)


def test_bad_settings():
    with pytest.raises(ValueError, match="diagonal"):
        RandMaskSplit("diagonal")
    with pytest.raises(ValueError, match="slope must not be negative and min_area must be positive, got -1"):
        RandMaskSplit(slope=-1)
