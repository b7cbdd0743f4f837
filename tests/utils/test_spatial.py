# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_fewshot.utils import pixels_per_slice, resize_slices


def test_pixels_are_counted_as_in_a_plain_loop():
    rng = np.random.default_rng(0)
    for depth in (1, 2, 7):
        label = rng.integers(0, 5, (9, 6, depth))
        counted = pixels_per_slice(torch.from_numpy(label)[None], 6)
        expected = [[int((label[..., z] == c).sum()) for z in range(depth)] for c in range(1, 7)]
        assert counted.tolist() == expected


@pytest.mark.parametrize("convert", [lambda x: x.float(), lambda x: MetaTensor(x.to(torch.uint8))])
def test_pixels_of_other_label_types(convert):
    label = torch.zeros(1, 4, 4, 2, dtype=torch.long)
    label[0, :3, 0, 1] = 2
    assert pixels_per_slice(convert(label), 2).tolist() == [[0, 0], [0, 3]]


@pytest.mark.parametrize(
    ("value", "found"), [(3.0, "values 0, 3."), (-1.0, "values -1, 0."), (0.5, "values 0, 0.5."), (float("nan"), "nan")]
)
def test_a_label_with_other_values_is_named(value, found):
    label = torch.zeros(1, 4, 4, 2)
    label[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="num_classes=2") as error:
        pixels_per_slice(label, 2)
    assert found in str(error.value)


def test_labels_keep_their_values_and_type():
    label = torch.randint(0, 7, (3, 1, 31, 45), dtype=torch.uint8)
    resized = resize_slices(label, (17, 64), mode="nearest")
    assert resized.dtype == torch.uint8
    rows = ((np.arange(17) + 0.5) * 31 / 17).astype(int)
    columns = ((np.arange(64) + 0.5) * 45 / 64).astype(int)
    assert torch.equal(resized, label[:, :, rows][:, :, :, columns])


def test_shrunk_images_keep_their_mean_and_lose_their_noise():
    image = torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0)) + 3
    shrunk = resize_slices(image, (32, 32))
    assert shrunk.mean().item() == pytest.approx(3, abs=0.05)
    assert shrunk.std() < 0.3


def test_a_ramp_stays_a_ramp():
    ramp = torch.linspace(0, 1, 64).expand(2, 1, 48, 64)
    inner = resize_slices(ramp, (30, 20))[..., 2:-2]
    steps = inner.diff(dim=-1)
    assert torch.allclose(steps, steps.mean().expand_as(steps), atol=1e-3)


def test_an_image_of_that_size_is_returned_as_it_is():
    image = torch.rand(1, 2, 5, 5)
    assert resize_slices(image, (5, 5)) is image


def test_an_unknown_mode_is_named():
    with pytest.raises(ValueError, match="'cubic'"):
        resize_slices(torch.rand(1, 1, 4, 4), (2, 2), mode="cubic")
