# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from monai_fewshot.data import AnnotatedSlices, SliceStack
from monai_fewshot.transforms import EpisodeAugmentation, RandAffineElastic

SHOWN = {1: 1, 4: 2, 5: 1}


def stack(shown=SHOWN, number=8):
    """Slices whose intensity is their number, some with a square of a class."""
    image = torch.arange(number).float().view(-1, 1, 1, 1).expand(-1, 1, 16, 16).clone()
    label = torch.zeros(number, 1, 16, 16, dtype=torch.uint8)
    for place, value in shown.items():
        label[place, 0, 4:12, 4:12] = value
    return SliceStack(image, label, torch.zeros(number, dtype=torch.int64))


def place(sample):
    return int(sample["image"].max())


def test_every_second_slice_shows_a_class_and_all_slices_are_drawn():
    samples = AnnotatedSlices(stack(), 200, num_classes=2)
    drawn = [place(sample) for sample in samples]
    assert set(drawn[::2]) == {1, 4, 5}
    assert set(drawn[1::2]) == {0, 2, 3, 6, 7}
    counts = [drawn.count(number) for number in (1, 4, 5)]
    assert all(abs(count - 100 / 3) < 4 * (100 * 2 / 9) ** 0.5 for count in counts), "within four deviations of a third"


def test_a_sample_is_a_slice_with_its_label():
    slices = stack()
    for sample in AnnotatedSlices(slices, 20, num_classes=2):
        assert torch.equal(sample["image"], slices.image[place(sample)])
        assert torch.equal(sample["label"], slices.label[place(sample)].float())


def test_a_sample_is_a_function_of_seed_and_number_alone():
    augmentation = EpisodeAugmentation(RandAffineElastic(), (0.5, 1.5))
    samples = AnnotatedSlices(stack(), 8, num_classes=2, seed=3, augmentation=augmentation)
    together, alone = samples.__getitems__([5, 0, 9]), [samples[number] for number in (5, 0, 9)]
    for one, other in zip(together, alone, strict=True):
        assert all(torch.allclose(one[key], other[key], atol=1e-4) for key in ("image", "label"))
    other_seed = AnnotatedSlices(stack(), 8, num_classes=2, seed=4)
    assert [place(s) for s in other_seed] != [place(s) for s in AnnotatedSlices(stack(), 8, num_classes=2, seed=3)]


def test_image_and_label_move_together():
    slices = stack(dict.fromkeys(range(8), 1))
    slices.image[:] = slices.label.float()
    still = AnnotatedSlices(slices, 4, num_classes=1)
    moved = AnnotatedSlices(slices, 4, 1, augmentation=EpisodeAugmentation(RandAffineElastic(), gamma=None))
    for before, after in zip(still, moved, strict=True):
        assert not torch.equal(before["label"], after["label"])
        inside, outside = after["image"] > 0.999, after["image"] < 0.001
        assert after["label"][inside].all()
        assert not after["label"][outside].any()
        assert inside.any()


def test_where_all_slices_show_a_class_all_are_drawn():
    samples = AnnotatedSlices(stack(dict.fromkeys(range(8), 1)), 100, num_classes=1)
    assert {place(sample) for sample in samples} == set(range(8))


def test_a_class_that_no_slice_shows():
    with pytest.raises(ValueError, match="No annotated slice shows class 3, 4 of 1 to 4"):
        AnnotatedSlices(stack(), 4, num_classes=4)
