# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.blocks import Convolution
from monai.networks.nets.basic_unet import Down, UpCat
from torch import nn

from monai_fewshot.networks.blocks import linear_resize

from .feature_encoder import FeatureEncoder
from .weights import load_encoder_weights

__all__ = ["UNetEncoder"]


class UNetEncoder(FeatureEncoder):
    """Compact U-Net feature extractor for training from scratch: features at half resolution.

    A stem of two convolutions, the first of stride 2, begins the contracting path; each further level halves the
    resolution (max pooling, two convolutions). The expanding path returns to the stem's resolution by linear
    upsampling, concatenation and two convolutions a level, and a 1x1 convolution ends it without normalization or
    activation, so that the cosine similarity of features covers all of [-1, 1]. With the defaults, 1.8 million
    parameters in 2D and 5.3 million in 3D.

    Based on: Ronneberger et al., U-Net, MICCAI 2015, https://arxiv.org/abs/1505.04597.

    Deviation: half resolution, normalized convolutions, linear upsampling after a 1x1 convolution.

    Args:
        spatial_dims: 2 or 3. Defaults to 2.
        in_channels: channels of the image. Defaults to 1.
        channels: widths of the contracting path, from stride 2 on, two levels or more.
            Defaults to (32, 64, 128, 256), that is strides 2, 4, 8 and 16.
        out_channels: channels of the features, by a last 1x1 convolution, or None for the first of ``channels`` without
            it. Defaults to 64.
        norm: normalization and its arguments, as in MONAI's factories. Defaults to "instance": the statistics of
            training batches do not carry over to other scans.
        act: activation and its arguments, as in MONAI's factories. Defaults to leaky ReLU of slope 0.1.
        weights: path or URL of a checkpoint (:func:`~monai_fewshot.networks.encoders.load_encoder_weights`), or None
            for random weights. Defaults to None.

    Raises:
        ValueError: if there are fewer than two levels, or the checkpoint does not fit.

    Example:
        >>> encoder = UNetEncoder()
        >>> encoder(torch.zeros(2, 1, 128, 129)).shape
        torch.Size([2, 64, 64, 65])
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        channels: Sequence[int] = (32, 64, 128, 256),
        out_channels: int | None = 64,
        norm: str | tuple = "instance",
        act: str | tuple = ("leakyrelu", {"negative_slope": 0.1, "inplace": True}),
        weights: str | None = None,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels or channels[0], stride=2)
        if len(channels) < 2:
            raise ValueError(f"channels is {tuple(channels)}, a U-Net needs two levels or more")
        self.channels = tuple(channels)
        self.smallest_size = 2 ** len(channels) - 1
        self.stem = nn.Sequential(
            Convolution(spatial_dims, in_channels, channels[0], strides=2, norm=norm, act=act, bias=False),
            Convolution(spatial_dims, channels[0], channels[0], norm=norm, act=act, bias=False),
        )
        self.down = nn.ModuleList(
            Down(spatial_dims, fine, coarse, act, norm, bias=False) for fine, coarse in pairwise(channels)
        )
        self.up = nn.ModuleList(
            _Up(spatial_dims, coarse, fine, fine, act, norm, bias=False, upsample="nontrainable")
            for coarse, fine in pairwise(reversed(channels))
        )
        self.project: nn.Module = nn.Identity()
        if out_channels is not None:
            self.project = Convolution(spatial_dims, channels[0], out_channels, kernel_size=1, conv_only=True)
        if weights is not None:
            load_encoder_weights(self, weights)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Extract features.

        Args:
            image: (B, in_channels, *S), every size at least ``2 ** len(channels) - 1`` (15 by default) and one of them
                at least twice that and 1 (31), since instance normalization takes more than one voxel.

        Returns:
            Features (B, out_channels, *ceil(S / 2)).

        Raises:
            ValueError: if the image has another number of channels, or is smaller than that.
        """
        return self.project(self.levels(image)[-1])

    def remove_projection(self) -> None:
        """Remove the 1x1 convolution to ``out_channels``: features are then those of the last level."""
        self.project = nn.Identity()
        self.out_channels = self.level_channels[-1]

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of the features that :meth:`levels` returns."""
        return tuple(reversed(self.channels))

    def levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Extract the features of the bottom and of every level of the way up, coarse to fine.

        Args:
            image: (B, in_channels, *S), see :meth:`forward`.

        Returns:
            Features of each level.

        Raises:
            ValueError: if the image has another number of channels, or is too small.
        """
        features = [self.run_stage(self.stem, self._check_size(self.check_image(image)))]
        for down in self.down:
            features.append(self.run_stage(down, features[-1]))
        found = [features.pop()]
        for up in self.up:
            found.append(self.run_stage(up, found[-1], features.pop()))
        return found

    def _check_size(self, image: torch.Tensor) -> torch.Tensor:
        if min(image.shape[2:]) < self.smallest_size or max(image.shape[2:]) <= 2 * self.smallest_size:
            raise ValueError(
                f"the image is {tuple(image.shape[2:])} voxels large, a U-Net of {len(self.down) + 1} levels needs "
                f"{self.smallest_size} or more along each axis and {2 * self.smallest_size + 1} or more along one; "
                "pad the image or give fewer channels"
            )
        return image


class _Up(UpCat):
    """MONAI's ``UpCat`` in operations that ``torch.compile`` takes in whole."""

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        upsampled = linear_resize(self.upsample.preconv(x), skip.shape[2:])
        return self.convs(torch.cat([skip, upsampled], dim=1))
