# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from monai_fewshot.data import PseudoLabelEpisodes, SliceStack
from tests.helpers.slice_stacks import PSEUDO_LABELS, pseudo_labels


def test_support_and_query_of_a_pseudo_label_episode_are_one_slice():
    stack = pseudo_labels()
    for episode in (PseudoLabelEpisodes(stack, 10, shots=2, seed=s)[0] for s in range(10)):
        assert (episode["support_image"] == episode["image"]).all()
        assert (episode["support_label"] == episode["label"]).all()
        (index,) = (i for i in range(5) if torch.equal(stack.image[i], episode["image"]))
        (value,) = stack.label[index][episode["label"] == 1].unique().tolist()
        assert torch.equal(episode["label"], (stack.label[index] == value).float())


def test_every_pseudo_label_is_drawn_and_nothing_else():
    dataset = PseudoLabelEpisodes(pseudo_labels(), 1)
    random = np.random.RandomState(0)
    drawn = Counter()
    for _ in range(3000):
        (index, again), (value,) = dataset.draw_slices(random)
        assert index == again
        drawn[index, value] += 1
    assert set(drawn) == {(index, value) for index, values in PSEUDO_LABELS.items() for value in values}
    for index, values in PSEUDO_LABELS.items():
        for value in values:
            assert abs(drawn[index, value] - 750 / len(values)) < 100, "slices alike, then their pseudo-labels alike"


def test_no_pseudo_label_at_all():
    stack = pseudo_labels()
    with pytest.raises(ValueError, match="No slice has a pseudo-label: is the foreground mask of every slice empty"):
        PseudoLabelEpisodes(replace(stack, label=torch.zeros_like(stack.label)), 5)


def _supervoxels():
    """Two scans of five slices of 8 x 8: value 1 in slices 0 to 2 of the first, 2 in slice 4 and, of four pixels, 3."""
    label = torch.zeros(10, 1, 8, 8, dtype=torch.int32)
    label[:3, 0, :4] = 1
    label[4, 0, 4:] = 2
    label[3, 0, 6:, 6:] = 2
    label[5, 0, :4] = 2
    image = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 8, 8)
    return SliceStack(image, label, torch.arange(2).repeat_interleave(5))


def test_support_and_query_are_successive_slices_of_one_supervoxel():
    dataset = PseudoLabelEpisodes(_supervoxels(), 200, successive=True, min_pixels=5)
    drawn = Counter((tuple(plan.slices), *plan.labeling) for plan in map(dataset.plan, range(200)))
    assert set(drawn) == {((0, 1), 1), ((1, 0), 1), ((1, 2), 1), ((2, 1), 1), ((4, 4), 2), ((5, 5), 2)}
    assert min(drawn.values()) > 10
    for episode in dataset.__getitems__(range(20)):
        assert episode["label"].any()
        assert episode["support_label"].any()


def test_shots_and_query_are_a_run_in_either_direction():
    dataset = PseudoLabelEpisodes(_supervoxels(), 50, shots=2, successive=True)
    drawn = {(tuple(plan.slices), *plan.labeling) for plan in map(dataset.plan, range(200))}
    assert drawn == {((0, 1, 2), 1), ((2, 1, 0), 1), ((3, 3, 3), 2), ((4, 4, 4), 2), ((5, 5, 5), 2)}


def test_pseudo_labels_of_few_pixels_are_not_drawn():
    drawn = {plan.slices[0] for plan in map(PseudoLabelEpisodes(_supervoxels(), 9).plan, range(99))}
    assert drawn == {0, 1, 2, 3, 4, 5}
    with pytest.raises(ValueError, match="are min_pixels, 33, too many"):
        PseudoLabelEpisodes(_supervoxels(), 1, min_pixels=33)
