# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.transforms import NormalizeIntensityd

from monai_fewshot.data import AcquiredScans


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_kept_is_not_changed_by_what_follows(channels):
    image = torch.rand(channels, 4, 5, 6)
    expected = image.clone()
    acquired = AcquiredScans(channels)
    scan = acquired({"name": "a", "image": image})
    NormalizeIntensityd("image", channel_wise=channels > 1)(scan)
    torch.testing.assert_close(acquired.take({"name": "a"})["image"], expected, rtol=0, atol=0)
    assert acquired.images == {}


def test_examples_and_what_nobody_asks_for_are_not_kept():
    acquired = AcquiredScans()
    label = torch.ones(1, 4, 5, 6)
    acquired({"name": "example", "image": torch.rand(1, 4, 5, 6), "label": label})
    assert acquired.images == {}
    acquired({"name": "a", "image": torch.rand(1, 4, 5, 6)})
    acquired.discard("a")
    acquired.discard("a")
    assert acquired.images == {}
    unkept = AcquiredScans(kept=False)
    unkept({"name": "a", "image": torch.rand(1, 4, 5, 6)})
    assert unkept.images == {}


def test_bad_voxels_are_found_before_they_are_prepared():
    image = torch.rand(1, 4, 5, 6)
    image[0, 1, 2, 3] = torch.nan
    with pytest.raises(ValueError, match="image: holds 1 NaN and 0 infinite values among 120 voxels"):
        AcquiredScans()({"name": "a", "image": image})
