# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_fewshot.transforms import ClassIntensity


def test_factors_are_in_their_range_and_as_frequent_as_asked():
    random = np.random.RandomState(0)
    drawn = np.array([ClassIntensity(0.5, 0.3).draw(random, 3) for _ in range(2000)])
    changed = drawn != 0
    np.testing.assert_allclose(changed.mean(0), 0.3, atol=0.04)
    assert np.abs(drawn).max() == pytest.approx(0.5, abs=0.01)
    assert drawn[changed].mean() == pytest.approx(0, abs=0.02)
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(0, abs=0.06), "each class by itself"


def test_each_class_moves_from_the_darkest_pixel_by_its_own_factor():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 2, 20, 20, generator=generator)
    label = torch.zeros(2, 1, 20, 20)
    label[:, :, 2:9, 2:9] = 1
    label[:, :, 12:19, 2:18] = 2
    label[1, :, 2:9, 12:19] = 255
    draws = [[0.5, -0.25], [0.0, 0.4]]
    found = ClassIntensity().apply(image, label, draws)
    for number, draw in enumerate(draws):
        for channel in range(2):
            low = image[number, channel].min()
            relative = (found[number, channel] - low) / (image[number, channel] - low).clamp(min=1e-6)
            assert relative[4:7, 4:7].numpy() == pytest.approx(math.exp(draw[0]), rel=1e-3)
            assert relative[14:17, 4:16].numpy() == pytest.approx(math.exp(draw[1]), rel=1e-3)
            torch.testing.assert_close(found[number, channel, :, 19], image[number, channel, :, 19])
    torch.testing.assert_close(found[1, :, 3:8, 13:18], image[1, :, 3:8, 13:18])
    border = (found[0, 0] - image[0, 0].min()) / (image[0, 0] - image[0, 0].min()).clamp(min=1e-6)
    assert border[2, 5].item() == pytest.approx(math.exp(0.5 * 2 / 3), rel=1e-3), "smoothed over three pixels"


@pytest.mark.parametrize("options", [{"strength": -0.1}, {"prob": 1.1}, {"prob": -0.1}])
def test_bad_ranges(options):
    with pytest.raises(ValueError, match="strength must not be negative and prob must lie from 0 to 1"):
        ClassIntensity(**options)
