# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.networks.blocks import Convolution
from torch import nn

from monai_fewshot.networks.blocks import UpsamplingDecoder, foreground_logits, linear_resize, shot_averages
from monai_fewshot.networks.encoders.feature_encoder import FeatureEncoder

from .prototype_segmenter import PrototypeSegmenter

__all__ = ["MaskSplitNet", "ShotPrototypes"]

NORM = ("group", {"num_groups": 4})


class ShotPrototypes(NamedTuple):
    """Prototypes of a batch of episodes.

    Attributes:
        vectors: (B, N, K, L, F), for each class, shot and level; K is 1 where shots were averaged.
        shown: (B, N, K), 1 where the shot shows the class, else 0.
    """

    vectors: torch.Tensor
    shown: torch.Tensor


class MaskSplitNet(PrototypeSegmenter):
    """A frozen trunk, prototypes of several of its levels, and modules that mix them with the query and decode.

    Each level of the trunk is projected to the same number of channels, the support's features of a class are averaged
    under its mask, and laid beside the query's; all levels together go through a shared convolution and the upsampling
    module.

    Based on: Amac et al., "MaskSplit: Self-supervised Meta-learning for Few-shot Semantic Segmentation", WACV 2022,
    section 3.3, https://arxiv.org/abs/2110.12207, whose trunk is ``DilatedResNetEncoder(101, out_channels=None)``.

    Deviation: a frozen trunk's batch normalization is frozen too, whose statistics drift in the original. One logit a
    class, the foreground's over the background's, whose sigmoid is the softmax of the original's two. The original is
    one-shot; here the prototypes of several shots are averaged, or the predictions from each.

    Args:
        spatial_dims: 2 or 3.
        encoder: the trunk, of which the ``levels`` are used; its projection to ``out_channels`` is removed.
        num_classes: number of classes N (ways) in an episode.
        channels: of the projections and of the mixed features.
        decoder_channels: of the upsampling module's blocks of two convolutions; a last one has half as many channels.
        freeze_encoder: whether the trunk keeps its weights and statistics; one with random weights must learn.
        shots: ``"prototypes"`` or ``"predictions"`` (their logits): what is averaged over shots that show the class. Of
            a class that none shows nothing is found.

    Raises:
        ValueError: for another kind of averaging.

    Example:
        >>> from monai_fewshot.networks.encoders import DilatedResNetEncoder
        >>> network = MaskSplitNet(2, DilatedResNetEncoder(18, out_channels=None)).eval()
        >>> support_label = torch.zeros(1, 2, 1, 64, 64)
        >>> support_label[..., 16:48, 16:48] = 1
        >>> context = network.encode_support(torch.rand(1, 2, 3, 64, 64), support_label)
        >>> network.segment(torch.rand(4, 3, 64, 64), context).shape
        torch.Size([4, 2, 64, 64])
    """

    def __init__(
        self,
        spatial_dims: int,
        encoder: FeatureEncoder,
        num_classes: int = 1,
        channels: int = 128,
        decoder_channels: Sequence[int] = (128, 64, 32),
        freeze_encoder: bool = True,
        shots: str = "prototypes",
    ) -> None:
        super().__init__(spatial_dims, encoder, num_classes)
        self.encoder: FeatureEncoder
        if shots not in ("prototypes", "predictions"):
            raise ValueError(f"shots is {shots!r}, must be 'prototypes' or 'predictions'.")
        encoder.remove_projection()
        if freeze_encoder:
            encoder.freeze()
        self.shots = shots
        widths = encoder.level_channels
        self.project = nn.ModuleList(_convolution(spatial_dims, width, channels) for width in widths)
        self.mix = _convolution(spatial_dims, 2 * channels * len(widths), channels)
        self.decoder = UpsamplingDecoder(
            spatial_dims, channels, decoder_channels, convolutions=2, upsample_first=False, norm=NORM
        )
        last = decoder_channels[-1]
        self.decide = nn.Sequential(
            _convolution(spatial_dims, last, last // 2),
            Convolution(spatial_dims, last // 2, 1, kernel_size=1, conv_only=True),
        )

    def encode_query(self, image: torch.Tensor) -> torch.Tensor:
        """Extract and project features.

        Args:
            image: (B, C, *S).

        Returns:
            (B, L, F, *s), all levels at the size of the largest.
        """
        levels = self.encoder.levels(image)
        size = [max(level.shape[axis] for level in levels) for axis in range(2, image.ndim)]
        projected = [project(level) for project, level in zip(self.project, levels, strict=True)]
        return torch.stack([linear_resize(level, size) for level in projected], dim=1)

    def classify(self, features: torch.Tensor, context: ShotPrototypes, size: Sequence[int]) -> torch.Tensor:
        """Mix features with prototypes and decode.

        Args:
            features: (B, L, F, *s).
            context: of batch B or 1.
            size: spatial size of the logits.

        Returns:
            (B, N+1, *size), 0 for background.
        """
        batch, levels, width = features.shape[:3]
        _, classes, shots = context.shown.shape
        space, dims = features.shape[3:], features.ndim - 3
        vectors = context.vectors.to(features.dtype).reshape(-1, classes, shots, levels, width, *[1] * dims)
        vectors = vectors.expand(batch, *[-1] * 4, *space)
        query = features[:, None, None].expand(-1, classes, shots, *[-1] * (2 + dims))
        beside = torch.cat([query, vectors], dim=4).flatten(3, 4).flatten(0, 2)
        margins = self.decide(self.decoder(self.mix(beside), size)).unflatten(0, (batch, classes, shots))
        shown = context.shown.to(margins.dtype).reshape(-1, classes, shots, *[1] * (1 + dims))
        return foreground_logits((margins * shown).sum(2) / shown.sum(2).clamp(min=1))

    def pool_prototypes(self, features: torch.Tensor, masks: torch.Tensor) -> ShotPrototypes:
        """Average features (E, K, L, F, *s) under masks (E, K, N+1, *s)."""
        pooled, shown = shot_averages(features.flatten(2, 3), masks[:, :, 1:])
        vectors, shown = pooled.unflatten(3, features.shape[2:4]).transpose(1, 2), shown.transpose(1, 2)
        if self.shots == "predictions":
            return ShotPrototypes(vectors, shown)
        average = vectors.sum(2, keepdim=True) / shown.sum(2).clamp(min=1)[..., None, None, None]
        return ShotPrototypes(average, shown.amax(2, keepdim=True))


def _convolution(spatial_dims: int, in_channels: int, out_channels: int) -> Convolution:
    return Convolution(spatial_dims, in_channels, out_channels, adn_ordering="NA", norm=NORM, act="relu")
