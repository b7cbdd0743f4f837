# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from self_training import slices

from monai_fewshot.data import SliceStack, UnlabeledSlices
from monai_fewshot.transforms import BoxPaste, EpisodeAugmentation, IntensityVariation, RandAffineElastic

WEAK = EpisodeAugmentation(RandAffineElastic(), None)
STRONG = EpisodeAugmentation(None, None, IntensityVariation(bias=0.4, noise=0.2))
KEYS = ("image", "label", "strong_image", "pasted")


def samples(length=8, weak=WEAK, strong=STRONG, mix=None, seed=0, number=9):
    return UnlabeledSlices(slices(number), length, weak, strong, mix or BoxPaste(), seed)


def test_a_sample_is_a_function_of_seed_and_number_alone():
    made = samples()
    together, alone = made.__getitems__([5, 0, 11]), [made[number] for number in (5, 0, 11)]
    for one, other in zip(together, alone, strict=True):
        for key in KEYS:
            torch.testing.assert_close(one[key], other[key], atol=1e-4, rtol=0)
    for other in (samples(seed=1)[5], made[6]):
        assert not torch.equal(other["image"], made[5]["image"])
    again = samples(length=100)[5]
    assert all(torch.equal(again[key], made[5][key]) for key in KEYS)


def test_weak_and_strong_form_lie_alike():
    """Gain and shift alone leave every pixel's place among the intensities."""
    linear = EpisodeAugmentation(None, None, IntensityVariation(gamma=(1.0, 1.0), blur_prob=0.0))
    for sample in samples(strong=linear):
        weak, strong = sample["image"].flatten(), sample["strong_image"].flatten()
        assert torch.corrcoef(torch.stack([weak, strong]))[0, 1] > 0.9999
        assert not torch.allclose(weak, strong)
    assert all(torch.equal(sample["image"], sample["strong_image"]) for sample in samples(strong=None))


def test_the_weak_form_is_a_moved_slice_and_nothing_else():
    stack = slices(9)
    plain = [UnlabeledSlices(stack, 60)[number]["image"] for number in range(60)]
    assert {next(n for n in range(9) if torch.equal(image, stack.image[n])) for image in plain} == set(range(9))
    moved = samples(60)
    assert not any(torch.equal(moved[number]["image"], plain[number]) for number in range(5))
    shapes = SliceStack(torch.ones(3, 1, 16, 16), stack.label[:3], stack.scan[:3])
    assert torch.allclose(UnlabeledSlices(shapes, 1, WEAK)[0]["image"][:, 6:10, 6:10], torch.ones(()))


def test_a_label_moves_with_its_slice_and_changes_nothing_else():
    stack = slices(9)
    shown = SliceStack(stack.label.float(), stack.label, stack.scan)
    for sample in UnlabeledSlices(shown, 20, WEAK):
        inside = F.max_pool2d(sample["label"], 3, 1, 1) == -F.max_pool2d(-sample["label"], 3, 1, 1)
        assert inside.float().mean() > 0.3
        assert (sample["label"] == sample["image"])[inside].float().mean() > 0.9
    other = SliceStack(stack.image, torch.zeros_like(stack.label), stack.scan)
    for one, two in zip(*(UnlabeledSlices(part, 5, WEAK, STRONG, BoxPaste()) for part in (stack, other)), strict=True):
        assert one.keys() == two.keys() == set(KEYS)
        assert all(torch.equal(one[key], two[key]) for key in KEYS if key != "label")
        assert not two["label"].any()


def test_boxes_are_those_drawn():
    sample = samples(4, mix=BoxPaste(1.0, (0.2, 0.3)))[3]
    assert sample["pasted"].shape == (1, 16, 16)
    assert sample["pasted"].dtype == torch.bool
    shares = [s["pasted"].float().mean().item() for s in samples(60, mix=BoxPaste(1.0, (0.2, 0.3)))]
    assert 0.13 < min(shares) <= max(shares) < 0.4
    assert not UnlabeledSlices(slices(9), 4)[0]["pasted"].any()
    assert 0.65 < sum(bool(s["pasted"].any()) for s in samples(200)) / 200 < 0.92


def test_strong_transforms_of_place_are_refused():
    with pytest.raises(ValueError, match="strong moves pixels, so that the teacher's labels would not fit"):
        samples(strong=WEAK)
