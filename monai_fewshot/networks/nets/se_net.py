# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Pool
from torch import nn

from monai_fewshot.networks.blocks import check_episode, class_masks, foreground_logits, linear_resize

from .few_shot_segmenter import FewShotSegmenter

__all__ = ["FewShotSENet", "ShotGates"]


class ShotGates(NamedTuple):
    """What the conditioner arm tells the segmenter arm.

    Attributes:
        gates: for each block of the segmenter (B, N, K, 1, *s), factors of all its channels, from 0 to 1.
        shown: (B, N, K), 1 where the shot shows the class, else 0.
    """

    gates: tuple[torch.Tensor, ...]
    shown: torch.Tensor


class FewShotSENet(FewShotSegmenter):
    r"""Two arms: one looks at support image and mask, and tells the other at every level where to look in the query.

    Both arms are encoder-decoders of the same blocks (convolution, activation, normalization), four down and four up
    around a bottleneck, without skip connections: what pooling leaves out is known only by the places of the maxima,
    to which the decoder puts values back. After each block the conditioner's channels are squeezed into one map that
    excites the segmenter's:

    .. math::
        u_i \leftarrow u_i \, \sigma(w_i * v_i + b_i)

    with :math:`u_i` the segmenter's and :math:`v_i` the conditioner's features of level i, after pooling on the way
    down. A query therefore finds the class near where the support shows it. With the defaults, 0.9 million parameters
    in 2D.

    Based on: Roy et al., "'Squeeze & Excite' Guided Few-Shot Segmentation of Volumetric Images", Medical Image
    Analysis 2020, https://arxiv.org/abs/1902.01314.

    Deviation: the published code uses the conditioner's third encoder block a second time in place of its fourth, and
    takes the softmax twice; here each block has weights of its own, and the loss takes the softmax once. One logit a
    class, the foreground's over the background's, whose sigmoid is the softmax of the original's two. Margins, not
    probabilities, are averaged over several shots, those that show the class.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the images.
        num_classes: number of classes N (ways) in an episode; each goes through the arms on its own.
        conditioner_channels: of every block of the conditioner arm.
        channels: of every block of the segmenter arm.
        num_levels: how often each arm halves the resolution, 1 or more.
        kernel_size: of the blocks' convolutions, odd.
        norm: normalization of the blocks.
        act: activation of the blocks.

    Raises:
        ValueError: where an argument is out of its range.

    Example:
        >>> network = FewShotSENet(2).eval()
        >>> support_image, support_label = torch.rand(1, 1, 1, 32, 32), torch.zeros(1, 1, 1, 32, 32)
        >>> support_label[..., 8:24, 8:24] = 1
        >>> context = network.encode_support(support_image, support_label)
        >>> network.segment(torch.rand(5, 1, 32, 32), context).shape
        torch.Size([5, 2, 32, 32])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int = 1,
        num_classes: int = 1,
        conditioner_channels: int = 16,
        channels: int = 64,
        num_levels: int = 4,
        kernel_size: int = 5,
        norm: str | tuple = "batch",
        act: str | tuple = "prelu",
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        if num_levels < 1 or num_classes < 1 or kernel_size % 2 == 0:
            raise ValueError(
                "num_levels and num_classes must be 1 or more and kernel_size odd, "
                f"got {num_levels}, {num_classes} and {kernel_size}."
            )
        self.spatial_dims = spatial_dims
        self.num_classes = num_classes
        block = {"kernel_size": kernel_size, "norm": norm, "act": act, "adn_ordering": "AN"}
        self.conditioner = _Arm(spatial_dims, in_channels + 1, conditioner_channels, num_levels, block)
        self.segmenter = _Arm(spatial_dims, in_channels, channels, num_levels, block)
        self.squeeze = nn.ModuleList(
            Convolution(spatial_dims, conditioner_channels, 1, kernel_size=1, conv_only=True)
            for _ in range(2 * num_levels + 1)
        )
        self.decide = Convolution(spatial_dims, channels, 1, kernel_size=1, conv_only=True)

    def encode_support(self, support_image: torch.Tensor, support_label: torch.Tensor) -> ShotGates:
        """Run the conditioner arm on each shot and class.

        Args:
            support_image: (E, K, C, *S).
            support_label: (E, K, 1, *S), 0 background, 1..N the classes; other values belong to no class.

        Returns:
            Gates of every block.

        Raises:
            ValueError: where images and labels do not fit together.
        """
        check_episode(support_image, support_label)
        masks = class_masks(support_label.flatten(0, 1), self.num_classes)[:, 1:]
        masks = masks.unflatten(0, support_label.shape[:2]).transpose(1, 2).unsqueeze(3)
        images = support_image.unsqueeze(1).expand(-1, self.num_classes, *support_image.shape[1:])
        features = self.conditioner(torch.cat([images, masks.to(images.dtype)], dim=3).flatten(0, 2))
        gates = (squeeze(level).sigmoid() for squeeze, level in zip(self.squeeze, features, strict=True))
        shown = masks.flatten(3).amax(3)
        return ShotGates(tuple(gate.unflatten(0, shown.shape) for gate in gates), shown)

    def classify(self, features: torch.Tensor, context: ShotGates, size: Sequence[int]) -> torch.Tensor:
        """Run the segmenter arm on each query, class and shot.

        Args:
            features: images (B, C, *S).
            context: of batch B or 1.
            size: spatial size of the logits.

        Returns:
            (B, N+1, *size), 0 for background, and for a class that no shot shows.
        """
        batch, (_, classes, shots) = len(features), context.shown.shape
        images = features[:, None, None].expand(-1, classes, shots, *features.shape[1:]).flatten(0, 2)
        gates = [gate.expand(batch, *gate.shape[1:]).flatten(0, 2) for gate in context.gates]
        margins = self.decide(self.segmenter(images, gates)[-1]).unflatten(0, (batch, classes, shots)).float()
        shown = context.shown.reshape(*context.shown.shape, *[1] * (margins.ndim - 3))
        average = (margins * shown).sum(2) / shown.sum(2).clamp(min=1)
        return linear_resize(foreground_logits(average), size)


class _Arm(nn.Module):
    """Encoder and decoder of blocks of one width, with unpooling to the places of the maxima."""

    def __init__(self, spatial_dims: int, in_channels: int, channels: int, num_levels: int, block: dict) -> None:
        super().__init__()
        self.pool = Pool[Pool.MAX, spatial_dims](2, return_indices=True)
        inputs = [in_channels] + [channels] * (num_levels - 1)
        self.down = nn.ModuleList(Convolution(spatial_dims, width, channels, **block) for width in inputs)
        self.bottleneck = Convolution(spatial_dims, channels, channels, **block)
        self.up = nn.ModuleList(Convolution(spatial_dims, channels, channels, **block) for _ in range(num_levels))

    def forward(self, x: torch.Tensor, gates: Sequence[torch.Tensor] | None = None) -> list[torch.Tensor]:
        """Return what each block gives, after pooling on the way down, times its gate where there are gates."""
        found: list[torch.Tensor] = []
        places = []
        for block in self.down:
            full = block(x)
            pooled, index = self.pool(full)
            places.append((index, full.shape[2:]))
            x = _excite(pooled, gates, len(found))
            found.append(x)
        x = _excite(self.bottleneck(x), gates, len(found))
        found.append(x)
        for block in self.up:
            x = _excite(block(_unpool(x, *places.pop())), gates, len(found))
            found.append(x)
        return found


def _excite(x: torch.Tensor, gates: Sequence[torch.Tensor] | None, number: int) -> torch.Tensor:
    return x if gates is None else x * linear_resize(gates[number], x.shape[2:]).to(x.dtype)


def _unpool(x: torch.Tensor, index: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Put values (B, C, *s) to their places in zeros (B, C, *size); torch's own has no form for any dimension."""
    zeros = x.new_zeros(*x.shape[:2], *size)
    return zeros.flatten(2).scatter(2, index.flatten(2), x.flatten(2)).unflatten(2, size)
