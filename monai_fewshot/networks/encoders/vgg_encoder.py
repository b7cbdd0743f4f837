# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from itertools import pairwise

import torch
from monai.networks.layers.factories import Conv, Norm, Pool
from torch import nn

from .feature_encoder import FeatureEncoder
from .weights import load_encoder_weights

__all__ = ["VGG16Encoder"]

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = (2, 2, 3, 3, 3)


class VGG16Encoder(FeatureEncoder):
    """Convolution blocks of VGG-16, the last of them dilated instead of strided.

    A 3x3 max pooling of stride 2 stands between two blocks. At the smaller stride, the last pooling has stride 1 and
    the convolutions of the last block a dilation of 2: with the same weights, every feature of the undilated network
    is also a feature of the dilated one. The activation after the last convolution is dropped, so that the
    cosine similarity of features covers all of [-1, 1].

    Parameters are named as torchvision's ``vgg16`` and ``vgg16_bn``, so that their checkpoints load. All five blocks
    have 14.7 million of them in 2D.

    Based on: Simonyan and Zisserman, 2014, https://arxiv.org/abs/1409.1556. The defaults are the encoder of PANet
    (Wang et al., ICCV 2019, https://arxiv.org/abs/1908.06391). ``num_blocks=4, stride=4, keep_pool=False`` is the
    encoder of Feyjie et al., 2020, https://arxiv.org/abs/2003.08462.

    Deviation: pooling windows are 3 wide, as in PANet, where VGG has 2; features of an odd size are rounded up.
    Feyjie et al. do not say where the dilation of 2 begins, nor whether the last activation stays.

    Args:
        spatial_dims: 2 or 3; checkpoints are 2D. Defaults to 2.
        in_channels: channels of the image; an image of one channel is repeated to them. Defaults to 3.
        num_blocks: blocks, 4 or 5; both end in 512 channels. Defaults to 5.
        stride: 4 or 8 with four blocks, 8 or 16 with five; the smaller one dilates. Defaults to 8.
        keep_pool: whether the pooling that lost its stride still takes the maximum; else it is left out.
            Defaults to True.
        batch_norm: whether a batch normalization follows each convolution. Defaults to False.
        weights: path or URL of a checkpoint (:func:`~monai_fewshot.networks.encoders.load_encoder_weights`), or None
            for random weights. Defaults to None.

    Raises:
        ValueError: if num_blocks or stride is none of these, or the checkpoint does not fit.

    Example:
        >>> encoder = VGG16Encoder(num_blocks=4, stride=4, keep_pool=False)
        >>> encoder(torch.zeros(1, 1, 32, 33)).shape
        torch.Size([1, 512, 8, 9])
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 3,
        num_blocks: int = 5,
        stride: int = 8,
        keep_pool: bool = True,
        batch_norm: bool = False,
        weights: str | None = None,
    ) -> None:
        if num_blocks not in (4, 5):
            raise ValueError(f"num_blocks is {num_blocks}, must be 4 or 5")
        strides = (2 ** (num_blocks - 2), 2 ** (num_blocks - 1))
        if stride not in strides:
            raise ValueError(f"stride is {stride}, must be one of {strides} with {num_blocks} blocks")
        super().__init__(spatial_dims, in_channels, WIDTHS[num_blocks - 1], stride, repeat_single_channel=True)
        layers: list[nn.Module] = []
        channels = in_channels
        self.block_starts = []
        for block in range(num_blocks):
            self.block_starts.append(len(layers))
            dilated = 2**block > stride
            if block:
                pool = Pool[Pool.MAX, spatial_dims](kernel_size=3, stride=1 if dilated else 2, padding=1)
                layers.append(pool if keep_pool or not dilated else nn.Identity())
            for _ in range(CONVOLUTIONS[block]):
                layers += self._convolution(channels, WIDTHS[block], 2 if dilated else 1, batch_norm)
                channels = WIDTHS[block]
        self.features = nn.Sequential(*layers[:-1])
        self.block_starts.append(len(self.features))
        if weights is not None:
            load_encoder_weights(self, weights)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Extract features.

        Args:
            image: (B, in_channels or 1, *S).

        Returns:
            Features (B, 512, *ceil(S / stride)).

        Raises:
            ValueError: if the image has another number of channels.
        """
        return self.levels(image)[-1]

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of the features that :meth:`levels` returns."""
        return WIDTHS[len(self.block_starts) - 4 : len(self.block_starts) - 1]

    def levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Extract the features of the last three blocks.

        Args:
            image: (B, in_channels or 1, *S).

        Returns:
            Features of each of them, each at its own stride.

        Raises:
            ValueError: if the image has another number of channels.
        """
        x = self.check_image(image)
        found = []
        for first, last in pairwise(self.block_starts):
            x = self.run_stage(self.features[first:last], x)
            found.append(x)
        return found[-3:]

    def _convolution(self, in_channels: int, out_channels: int, dilation: int, batch_norm: bool) -> list[nn.Module]:
        conv = Conv[Conv.CONV, self.spatial_dims](
            in_channels, out_channels, kernel_size=3, padding=dilation, dilation=dilation
        )
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(conv.bias)
        norm = [Norm[Norm.BATCH, self.spatial_dims](out_channels)] if batch_norm else []
        return [conv, *norm, nn.ReLU(inplace=True)]
