# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from monai.transforms import NormalizeIntensity

from monai_fewshot.transforms import NormalizeChannels


@pytest.mark.parametrize("size", [(8, 9), (4, 5, 6)])
def test_it_is_monais_transform_for_a_batch(size):
    normalize = NormalizeChannels([0.4, 0.5, 0.6], [0.1, 0.2, 0.3])
    reference = NormalizeIntensity(subtrahend=normalize.mean, divisor=normalize.std, channel_wise=True)
    images = torch.rand(4, 3, *size)
    assert torch.allclose(normalize(images), torch.stack([reference(image) for image in images]), atol=1e-6)


def test_defaults_normalize_gray_images_to_three_channels():
    image = torch.rand(2, 1, 8, 8)
    assert torch.equal(NormalizeChannels()(image), NormalizeChannels()(image.expand(-1, 3, -1, -1)))


def test_wrong_numbers():
    with pytest.raises(ValueError, match="one number a channel"):
        NormalizeChannels([0.5], [1.0, 1.0])
    with pytest.raises(ValueError, match="std positive"):
        NormalizeChannels([0.5], [0.0])
    with pytest.raises(ValueError, match=r"\(1, 2, 4, 4\) have not the 3 channels"):
        NormalizeChannels()(torch.rand(1, 2, 4, 4))
