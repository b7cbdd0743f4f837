# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.inferers import SimpleInferer

from monai_fewshot.inferers import AutocastInferer, FewShotVolumeInferer
from monai_fewshot.networks.encoders import UNetEncoder
from monai_fewshot.networks.nets import ALPNet


class _Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.seen = []

    def forward(self, image):
        features = self.convolution(image)
        self.seen.append(features.dtype)
        return features


def _episode(batch=2, size=32):
    label = torch.zeros(batch, 1, size, size)
    label[:, :, 8:24, 4:20] = 1
    generator = torch.Generator().manual_seed(0)
    image, support = (label + 0.3 * torch.randn(label.shape, generator=generator) for _ in range(2))
    return image, support[:, None], label[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolutions_in_that_type_and_similarities_in_float32(dtype):
    network = ALPNet(2, _Encoder())
    logits, support_logits, *_ = AutocastInferer(SimpleInferer(), dtype)(_episode()[0], network, *_episode()[1:])
    assert network.encoder.seen == [dtype]
    assert (logits.dtype, support_logits.dtype) == (torch.float32, torch.float32)
    (logits.sum() + support_logits.sum()).backward()
    assert network.encoder.convolution.weight.grad.dtype == torch.float32


def test_an_episode_comes_out_nearly_the_same():
    torch.manual_seed(0)
    network = ALPNet(2, UNetEncoder(channels=(8, 16), out_channels=16)).eval()
    image, *support = _episode()
    with torch.no_grad():
        exact, rough = (
            AutocastInferer(SimpleInferer(), dtype)(image, network, *support)
            for dtype in (torch.float32, torch.bfloat16)
        )
    assert not torch.equal(exact, rough)
    assert (exact - rough).abs().max() < 0.5, "of logits between -20 and 20"
    assert ((exact[:, 1] > exact[:, 0]) == (rough[:, 1] > rough[:, 0])).float().mean() > 0.98


def test_volumes_in_mixed_precision():
    torch.manual_seed(0)
    network = ALPNet(2, UNetEncoder(channels=(8, 16), out_channels=16)).eval()
    image, support, label = (slices.reshape(6, 32, 32).permute(1, 2, 0) for slices in _episode(6))
    inputs = (image[None, None], network, support[None, None, None], label[None, None, None])
    exact, rough = (
        FewShotVolumeInferer("whole_volume", num_classes=1, dtype=dtype)(*inputs)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    assert ((exact > 0) == (rough > 0)).float().mean() > 0.98
