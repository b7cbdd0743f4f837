# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from torch import nn

__all__ = ["FeatureEncoder"]


class FeatureEncoder(nn.Module):
    """An encoder maps images (B, in_channels, *S) to features (B, out_channels, *ceil(S / stride)).

    Sub-classes pass their input through :meth:`check_image` first.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: channels of the features.
        stride: edge of the image patch, in voxels, that stands behind one feature.
        repeat_single_channel: take an image of one channel too, repeated to ``in_channels``. Defaults to False.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        stride: int,
        repeat_single_channel: bool = False,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims is {spatial_dims}, must be 2 or 3")
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.repeat_single_channel = repeat_single_channel

    def check_image(self, image: torch.Tensor) -> torch.Tensor:
        """Check the shape of an image, and repeat a single channel where the encoder allows it.

        Args:
            image: (B, in_channels, *S), or (B, 1, *S) with ``repeat_single_channel``.

        Returns:
            The image (B, in_channels, *S).

        Raises:
            ValueError: if the image has another number of dimensions or of channels.
        """
        if image.ndim != self.spatial_dims + 2:
            raise ValueError(
                f"{type(self).__name__} with spatial_dims={self.spatial_dims} needs an image of "
                f"{self.spatial_dims + 2} dimensions (batch, channel, space), got shape {tuple(image.shape)}"
            )
        channels = image.shape[1]
        if channels == 1 and self.repeat_single_channel:
            return image.expand(-1, self.in_channels, *image.shape[2:])
        if channels != self.in_channels:
            raise ValueError(
                f"the image has {channels} channels (shape {tuple(image.shape)}), "
                f"{type(self).__name__} was made for {self.in_channels}; make it with in_channels={channels}"
            )
        return image
