# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from monai_fewshot.data import MaskSplitEpisodes, SliceStack
from monai_fewshot.transforms import EpisodeAugmentation, RandAffineElastic, RandMaskSplit


def _stack(count=5, size=32):
    generator = torch.Generator().manual_seed(0)
    items = []
    for number in range(count):
        label = torch.zeros(1, size, size, dtype=torch.uint8)
        if number:
            label[:, 4 + number : 24, 6:26] = 1
        image = torch.randint(0, 256, (3, size, size), generator=generator).to(torch.uint8)
        items.append({"image": image, "pseudo_label": label})
    return SliceStack.from_scans(items)


@pytest.mark.parametrize("shots", [1, 3])
def test_an_episode_is_one_image_with_the_two_halves_of_its_mask(shots):
    stack = _stack()
    for index, episode in enumerate(MaskSplitEpisodes(stack, 12, RandMaskSplit("mixed", min_area=1), shots)):
        plan = MaskSplitEpisodes(stack, 12, RandMaskSplit("mixed", min_area=1), shots).plan(index)
        image, label = stack.take(plan.slices)
        assert len(set(plan.slices)) == 1
        assert torch.equal(episode["image"], image[-1])
        assert torch.equal(episode["support_image"], image[:-1])
        own, other = episode["support_label"] == 1, episode["label"] == 1
        assert torch.equal((own[0] | other), label[0] == 1)
        assert not (own[0] & other).any()
        assert torch.equal(episode["label"] == 255, own[0])
        assert all(torch.equal(shot, own[0]) for shot in own)


def test_without_a_split_both_have_the_whole_mask():
    for episode in MaskSplitEpisodes(_stack(), 6):
        assert torch.equal(episode["label"], episode["support_label"][0])
        assert set(episode["label"].unique().tolist()) == {0, 1}


def test_empty_masks_are_never_drawn_and_others_are():
    stack = _stack()
    drawn = {MaskSplitEpisodes(stack, 60).plan(index).slices[0] for index in range(60)}
    assert drawn == {1, 2, 3, 4}
    with pytest.raises(ValueError, match="No slice has a pseudo-label"):
        MaskSplitEpisodes(replace(stack, label=torch.zeros_like(stack.label)), 5)


def test_an_episode_depends_on_seed_and_number_alone():
    split, augmentation = RandMaskSplit("mixed", min_area=1), EpisodeAugmentation(RandAffineElastic(flip=(0.5, 0.5)))
    first, second = (MaskSplitEpisodes(_stack(), 8, split, augmentation=augmentation, seed=s) for s in (3, 4))
    batch = first.__getitems__([5, 2, 7])
    for episode, index in zip(batch, (5, 2, 7), strict=True):
        for key, value in first[index].items():
            torch.testing.assert_close(episode[key], value, atol=1e-5, rtol=0)
    assert any(not torch.equal(first[i]["label"], second[i]["label"]) for i in range(8))


def test_the_ignored_half_moves_with_its_image():
    split = RandMaskSplit("vertical", slope=0, alternate=False, min_area=1)
    geometry = RandAffineElastic(rotate=0, translate=0, shear=0, zoom=(1, 1), alpha=0, flip=(0, 1))
    plain = MaskSplitEpisodes(_stack(), 4, split)
    flipped = MaskSplitEpisodes(_stack(), 4, split, augmentation=EpisodeAugmentation(geometry, None))
    for before, after in zip(plain, flipped, strict=True):
        assert torch.equal(after["label"], before["label"].flip(2))
        assert set(after["label"].unique().tolist()) == {0, 1, 255}
