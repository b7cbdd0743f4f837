# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from torch import nn

from .resize import linear_resize

__all__ = ["UpsamplingDecoder"]


class UpsamplingDecoder(nn.Module):
    """Blocks of convolutions and linear upsampling, from features of an encoder to features of the image's size.

    Each block doubles the size, up to that of the image; what is left to it is one more resizing.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the features.
        channels: of the blocks, one number a block.
        convolutions: 3x3 convolutions in a block, each with normalization and activation.
        upsample_first: whether a block resizes before its convolutions or after them.
        norm: normalization.
        act: activation.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        channels: Sequence[int],
        convolutions: int = 1,
        upsample_first: bool = True,
        norm: str | tuple = "batch",
        act: str | tuple = "relu",
    ) -> None:
        super().__init__()
        self.upsample_first = upsample_first
        self.blocks = nn.ModuleList()
        for width in channels:
            inputs = [in_channels] + [width] * (convolutions - 1)
            self.blocks.append(
                nn.Sequential(
                    *(Convolution(spatial_dims, n, width, adn_ordering="NA", norm=norm, act=act) for n in inputs)
                )
            )
            in_channels = width

    def forward(self, features: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Decode.

        Args:
            features: (B, in_channels, *s).
            size: spatial size of the image.

        Returns:
            (B, channels of the last block, *size).
        """
        for block in self.blocks:
            target = [min(2 * n, full) for n, full in zip(features.shape[2:], size, strict=True)]
            if self.upsample_first:
                features = block(linear_resize(features, target))
            else:
                features = linear_resize(block(features), target)
        return linear_resize(features, size)
