# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from monai_fewshot.networks.nets import PixelShuffleNetwork


class Seen(nn.Module):
    def forward(self, image):
        self.image = image
        return image


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("size", [(12, 18), (13, 20), (11, 17)])
def test_no_pixel_is_lost_or_moved(factor, size):
    image = torch.rand(2, 3, *size)
    assert torch.equal(PixelShuffleNetwork(Seen(), factor)(image), image)


def test_squares_of_pixels_are_channels():
    network, image = PixelShuffleNetwork(Seen()), torch.rand(2, 3, 8, 6)
    network(image)
    expected = image.numpy().reshape(2, 3, 4, 2, 3, 2).transpose(0, 1, 3, 5, 2, 4).reshape(2, 12, 4, 3)
    np.testing.assert_array_equal(network.network.image, expected)


def test_the_border_is_repeated():
    network, image = PixelShuffleNetwork(Seen()), torch.rand(1, 1, 5, 7)
    network(image)
    padded = np.pad(image[0, 0].numpy(), ((0, 1), (0, 1)), mode="edge")
    np.testing.assert_array_equal(network.network.image[0, 3], padded[1::2, 1::2])


def test_classes_come_out_at_full_size_and_learn():
    network = PixelShuffleNetwork(nn.Conv2d(4, 12, 1))
    out = network(torch.rand(2, 1, 9, 11))
    assert out.shape == (2, 3, 9, 11)
    out.sum().backward()
    assert network.network.weight.grad.abs().sum() > 0
