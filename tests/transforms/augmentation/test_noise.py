# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import torch

from monai_fewshot.transforms import uniform_noise


def _mix(value):
    """The published hash, in Python's own integers."""
    value ^= value >> 16
    value = value * 0x7FEB352D % 2**32
    value ^= value >> 15
    value = value * 0x846CA68B % 2**32
    return value ^ value >> 16


def _signed(value):
    return (value - 2**32 if value >= 2**31 else value) / 2**31


def test_agrees_with_integers_of_any_size():
    seeds = [0, 1, 12345, 2**31 - 2, 2**31 - 1]
    noise = uniform_noise(torch.tensor(seeds), (2, 3, 5))
    assert noise.dtype == torch.float32
    expected = [[_signed(_mix(_mix(seed + 1) ^ _mix(i))) for i in range(30)] for seed in seeds]
    np.testing.assert_allclose(noise.flatten(1), expected, rtol=0, atol=1e-7)


def test_an_item_does_not_depend_on_its_batch():
    batch = uniform_noise(torch.tensor([5, 9, 5]), (2, 8, 8))
    assert torch.equal(batch[1:2], uniform_noise(torch.tensor([9]), (2, 8, 8)))
    assert torch.equal(batch[0], batch[2])


def test_is_uniform_and_uncorrelated():
    noise = uniform_noise(torch.arange(40), (2, 64, 64)).double()
    counts = torch.histc(noise, 64, -1, 1)
    mean = noise.numel() / 64
    chi_squared = ((counts - mean) ** 2 / mean).sum().item()
    assert 25 < chi_squared < 120, "63 degrees of freedom"
    correlation = torch.corrcoef(noise.flatten(1)) - torch.eye(40)
    assert correlation.abs().max() < 5 / np.sqrt(2 * 64 * 64)
    for axis, lag in ((2, 1), (3, 1), (3, 2)):
        product = noise.narrow(axis, lag, 64 - lag) * noise.narrow(axis, 0, 64 - lag)
        assert product.mean().abs() < 5 / 3 / np.sqrt(product.numel())
