# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.utils import ensure_tuple_rep
from torch import nn

from monai_fewshot.networks.blocks import MixedTransformerBlock, linear_resize

__all__ = ["MTUNet"]


class MTUNet(nn.Module):
    """MT-UNet: a U-Net of convolutions at full, half and quarter size, and of mixed Transformer blocks below.

    Three residual blocks of convolutions, each followed by max pooling, lead to tokens of 8 x 8 pixels, which get a
    learned position embedding. Each further level has two :class:`MixedTransformerBlock` and halves the size, down to
    the bottleneck at 1/32, the embedding of the image. The way up mirrors this, with transposed convolutions and
    concatenated skips; on the token level its blocks have twice the channels.

    With the defaults, that is one channel and nine classes, 79,074,237 parameters. With ``in_channels=3`` they are
    79,075,389, the published network's 79.08 M: it repeats a single channel three times. Of these 3.8 M are output
    layers of axial attention, see :class:`~monai_fewshot.networks.blocks.GaussianAxialAttention`, and 0.2 M are the
    position embedding of 28 x 28 tokens.

    Based on: Wang et al., Mixed Transformer U-Net for Medical Image Segmentation, ICASSP 2022,
    https://arxiv.org/abs/2111.04734.

    Deviation: any image size that is a multiple of 16, where the published network takes 224 x 224 only: the position
    embedding is interpolated, windows at the border hold fewer tokens, an odd grid is filled up by a row or column of
    zeros before it is halved, and cropped on the way up. One channel is not repeated to three.

    Args:
        spatial_dims: 2, the only one there is. Defaults to 2.
        in_channels: channels of the image. Defaults to 1.
        out_channels: classes with background. Defaults to 9.
        stem_channels: of the convolutions at full, half and quarter size. Defaults to (64, 128, 256).
        channels: of the Transformer levels, from 1/8 down to the bottleneck, two or more, each a multiple of ``heads``.
            Defaults to (256, 512, 1024).
        heads: number of heads. Defaults to 8.
        window: edge of the windows of local attention, in tokens. Defaults to 4.
        memories: number of memories of external attention. Defaults to 64.
        img_size: image size, pixels, for which the position embedding has one vector a token; it is interpolated for
            others. A multiple of 16. Defaults to 224.

    Raises:
        ValueError: if ``spatial_dims`` is not 2, there are not three stem channels, fewer than two Transformer levels,
            channels do not divide among the heads, or ``img_size`` is no multiple of 16.

    Example:
        >>> network = MTUNet(out_channels=3, stem_channels=(4, 8, 8), channels=(8, 16, 32))
        >>> features = network.encode(torch.zeros(2, 1, 64, 96))
        >>> network.decode(features).shape, features[-1].shape
        (torch.Size([2, 3, 64, 96]), torch.Size([2, 32, 2, 3]))
    """

    STEP = 16
    TOKEN = 8

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 9,
        stem_channels: Sequence[int] = (64, 128, 256),
        channels: Sequence[int] = (256, 512, 1024),
        heads: int = 8,
        window: int = 4,
        memories: int = 64,
        img_size: int | Sequence[int] = 224,
    ) -> None:
        super().__init__()
        size = ensure_tuple_rep(img_size, 2)
        _check_arguments(spatial_dims, stem_channels, channels, size, self.STEP)
        self.in_channels = in_channels
        attention = {"heads": heads, "window": window, "memories": memories}

        self.stem = nn.ModuleList(
            _ResidualConvolutions(fine, coarse) for fine, coarse in pairwise((in_channels, *stem_channels))
        )
        self.pool = nn.MaxPool2d(2)
        self.to_tokens = _convolution(stem_channels[-1], channels[0], kernel_size=1)
        self.position = nn.Parameter(torch.zeros(1, channels[0], *(edge // self.TOKEN for edge in size)))
        self.levels = nn.ModuleList(_transformer(width, attention) for width in channels)
        self.halve = nn.ModuleList(
            _convolution(fine, coarse, kernel_size=2, strides=2, padding=0) for fine, coarse in pairwise(channels)
        )
        finer = list(reversed(channels[:-1]))
        widths = [*finer[:-1], 2 * channels[0]]
        self.up = nn.ModuleList(
            _TransformerUp(coarse, fine, width, attention)
            for coarse, fine, width in zip((channels[-1], *widths), finer, widths, strict=False)
        )
        self.up_stem = nn.ModuleList(
            _ConvolutionUp(coarse, fine) for coarse, fine in pairwise((widths[-1], *reversed(stem_channels)))
        )
        self.head = nn.Conv2d(stem_channels[0], out_channels, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Segment.

        Args:
            image: (B, in_channels, H, W), both sizes multiples of 16. In training, more than one image where they are
                of 32 x 32 pixels or less, since batch normalization takes more than one value a channel.

        Returns:
            Logits (B, out_channels, H, W).

        Raises:
            ValueError: if the image has other channels or another size.
        """
        return self.decode(self.encode(image))

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Encode.

        Args:
            image: as for :meth:`forward`.

        Returns:
            Features of all levels, fine to coarse: (B, C, H, W), (B, C, H / 2, W / 2) and so on. The last is the
            embedding.

        Raises:
            ValueError: if the image has other channels or another size.
        """
        x, features = self._check_image(image), []
        for block in self.stem:
            features.append(block(x))
            x = self.pool(features[-1])
        x = self.to_tokens(x)
        x = x + linear_resize(self.position, x.shape[2:])
        for level, halve in zip(self.levels, self.halve, strict=False):
            features.append(level(x))
            x = halve(_even(features[-1]))
        return (*features, self.levels[-1](x))

    def decode(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Decode.

        Args:
            features: of all levels, fine to coarse, as :meth:`encode` gives them.

        Returns:
            Logits (B, out_channels, H, W).
        """
        *skips, x = features
        for up in (*self.up, *self.up_stem):
            x = up(x, skips.pop())
        return self.head(x)

    def _check_image(self, image: torch.Tensor) -> torch.Tensor:
        if image.ndim != 4 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"the image is of shape {tuple(image.shape)}, this MTUNet needs (batch, {self.in_channels}, height, "
                "width); make it with another in_channels, or change the image"
            )
        if any(edge == 0 or edge % self.STEP for edge in image.shape[2:]):
            raise ValueError(
                f"the image is {tuple(image.shape[2:])} pixels large, MTUNet needs multiples of {self.STEP}; resize "
                f"it, or pad it, for example with monai.transforms.DivisiblePad(k={self.STEP})"
            )
        return image


class _ResidualConvolutions(nn.Module):
    """Two normalized 3x3 convolutions, and a 1x1 convolution beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            _convolution(in_channels, out_channels), _convolution(out_channels, out_channels, act=None)
        )
        self.residual = _convolution(out_channels, out_channels, act=None, kernel_size=1, bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolutions(x)
        return torch.relu(x + self.residual(x))


class _ConvolutionUp(nn.Module):
    """Twice the size, a skip, and convolutions."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(coarse, fine, kernel_size=2, stride=2)
        self.block = _ResidualConvolutions(2 * fine, fine)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.block(torch.cat((skip, self.upsample(x)), dim=1))


class _TransformerUp(nn.Module):
    """Twice the size, cropped to that of a skip, and Transformer blocks of a width."""

    def __init__(self, coarse: int, fine: int, width: int, attention: dict[str, int]) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(coarse, fine, kernel_size=2, stride=2)
        self.reduce = nn.Identity() if width == 2 * fine else nn.Conv2d(2 * fine, width, kernel_size=1)
        self.blocks = _transformer(width, attention)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.upsample(x)[..., : skip.shape[2], : skip.shape[3]]
        return self.blocks(self.reduce(torch.cat((x, skip), dim=1)))


def _convolution(in_channels: int, out_channels: int, act: str | None = "relu", **options: int | bool) -> nn.Module:
    return Convolution(
        2, in_channels, out_channels, adn_ordering="NA", norm="batch", act=act, **{"bias": False, **options}
    )


def _transformer(width: int, attention: dict[str, int]) -> nn.Sequential:
    return nn.Sequential(*(MixedTransformerBlock(width, **attention) for _ in range(2)))


def _even(x: torch.Tensor) -> torch.Tensor:
    return F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))


def _check_arguments(
    spatial_dims: int, stem_channels: Sequence[int], channels: Sequence[int], size: Sequence[int], step: int
) -> None:
    if spatial_dims != 2:
        raise ValueError(f"spatial_dims is {spatial_dims}, MTUNet is made for images: spatial_dims=2")
    if len(stem_channels) != 3:
        raise ValueError(f"stem_channels is {tuple(stem_channels)}, MTUNet needs three: at full, half and quarter size")
    if len(channels) < 2:
        raise ValueError(f"channels is {tuple(channels)}, MTUNet needs two Transformer levels or more")
    if any(edge < step or edge % step for edge in size):
        raise ValueError(f"img_size is {tuple(size)}, MTUNet needs multiples of {step}")
