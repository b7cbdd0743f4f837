# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution

from monai_fewshot.networks.blocks import UpsamplingDecoder, foreground_logits, shot_averages
from monai_fewshot.networks.encoders.feature_encoder import FeatureEncoder

from .prototype_segmenter import PrototypeSegmenter

__all__ = ["TiledPrototypeNet"]


class TiledPrototypeNet(PrototypeSegmenter):
    """A prototype beside every feature of the query, and a decoder that tells foreground from the two.

    The features of a class are averaged under its masks over all shots, tiled to the size of the query's features,
    convolved with them and decoded.

    Based on: Feyjie et al., "Semi-supervised few-shot learning for medical image segmentation", 2020, section 1.1,
    https://arxiv.org/abs/2003.08462. Its encoder is ``VGG16Encoder(num_blocks=4, stride=4, keep_pool=False)``.

    Deviation: the decoder gives one logit a class, the foreground's over the background's, whose sigmoid is the softmax
    of the paper's two. The paper does not say how wide its layers are, nor how tiled prototype and features are brought
    together; here they are concatenated.

    Args:
        spatial_dims: 2 or 3.
        encoder: from (B, C, *S) to features (B, F, *s).
        num_classes: number of classes N (ways) in an episode.
        channels: of the convolution of features with prototypes, then of each block of the decoder.
        norm: normalization of the decoder.

    Example:
        >>> from monai_fewshot.networks.encoders import UNetEncoder
        >>> network = TiledPrototypeNet(2, UNetEncoder(2, 3)).eval()
        >>> support_label = torch.zeros(1, 5, 1, 64, 64)
        >>> support_label[..., 16:48, 16:48] = 1
        >>> context = network.encode_support(torch.rand(1, 5, 3, 64, 64), support_label)
        >>> network.segment(torch.rand(4, 3, 64, 64), context).shape
        torch.Size([4, 2, 64, 64])
    """

    def __init__(
        self,
        spatial_dims: int,
        encoder: FeatureEncoder,
        num_classes: int = 1,
        channels: Sequence[int] = (256, 128, 64),
        norm: str | tuple = "batch",
    ) -> None:
        super().__init__(spatial_dims, encoder, num_classes)
        self.mix = Convolution(
            spatial_dims, 2 * encoder.out_channels, channels[0], adn_ordering="NA", norm=norm, act="relu"
        )
        self.decoder = UpsamplingDecoder(spatial_dims, channels[0], channels[1:], norm=norm)
        self.decide = Convolution(spatial_dims, channels[-1], 1, kernel_size=1, conv_only=True)

    def classify(self, features: torch.Tensor, context: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Decode features beside prototypes.

        Args:
            features: (B, F, *s).
            context: prototypes (B or 1, N, F).
            size: spatial size of the logits.

        Returns:
            (B, N+1, *size), 0 for background.
        """
        batch, classes = features.shape[0], context.shape[1]
        tiled = context.expand(batch, -1, -1).reshape(batch, classes, -1, *[1] * (features.ndim - 2))
        tiled = tiled.expand(-1, -1, -1, *features.shape[2:])
        query = features.unsqueeze(1).expand(-1, classes, *[-1] * (features.ndim - 1))
        mixed = self.mix(torch.cat([query, tiled.to(query.dtype)], dim=2).flatten(0, 1))
        margins = self.decide(self.decoder(mixed, size))
        return foreground_logits(margins.unflatten(0, (batch, classes)))

    def pool_prototypes(self, features: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Average features (E, K, F, *s) under masks (E, K, N+1, *s); returns (E, N, F), float32."""
        by_shot, shown = shot_averages(features, masks[:, :, 1:])
        return by_shot.sum(1) / shown.sum(1).clamp(min=1).unsqueeze(2)
