# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools

import pytest
import torch

from monai_fewshot.networks.blocks import class_masks, foreground_logits


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("size", [(5, 7), (3, 4, 5)])
def test_masks_are_those_of_a_loop_and_other_values_are_in_none(size, dtype):
    label = torch.randint(0, 5, (2, 1, *size), generator=torch.Generator().manual_seed(0))
    label[label == 4] = 255
    masks = class_masks(label.to(dtype), 2)
    assert masks.shape == (2, 3, *size)
    assert masks.dtype == torch.float32
    for b, c in itertools.product(range(2), range(3)):
        for place in itertools.product(*map(range, size)):
            assert masks[(b, c, *place)] == float(label[(b, 0, *place)] == c)
    assert torch.equal(masks.sum(1, keepdim=True), (label <= 2).float())


def test_a_class_that_is_not_there_has_an_empty_mask():
    masks = class_masks(torch.tensor([[[[0, 3], [1, 1]]]]), 3)
    assert masks.tolist() == [[[[1, 0], [0, 0]], [[0, 0], [1, 1]], [[0, 0], [0, 0]], [[0, 1], [0, 0]]]]


def test_margins_follow_a_background_of_zero():
    margins = torch.tensor([[[[[1.5, -2.0]]], [[[0.5, 3.0]]]]])
    assert margins.shape == (1, 2, 1, 1, 2)
    assert foreground_logits(margins).tolist() == [[[[0, 0]], [[1.5, -2]], [[0.5, 3]]]]


@pytest.mark.parametrize("size", [(4, 6), (3, 4, 5)])
def test_the_label_is_the_class_of_the_largest_positive_margin(size):
    margins = torch.randn(2, 3, 1, *size, generator=torch.Generator().manual_seed(1))
    label = foreground_logits(margins).argmax(1)
    for b in range(2):
        for place in itertools.product(*map(range, size)):
            values = [0.0, *(margins[(b, c, 0, *place)].item() for c in range(3))]
            assert label[(b, *place)] == values.index(max(values))


def test_precision_device_and_gradient_are_those_of_the_margins():
    margins = torch.randn(1, 2, 1, 3, 3, dtype=torch.bfloat16, requires_grad=True)
    logits = foreground_logits(margins)
    assert logits.dtype == torch.bfloat16
    weights = torch.arange(27, dtype=torch.bfloat16).view(1, 3, 3, 3)
    (logits * weights).sum().backward()
    assert torch.equal(margins.grad[:, :, 0], weights[:, 1:])
    assert foreground_logits(margins.to("meta")).device.type == "meta"
    assert class_masks(torch.empty(1, 1, 2, 2, device="meta"), 1).device.type == "meta"
