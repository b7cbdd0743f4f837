# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.blocks import Convolution

from monai_fewshot.networks.blocks import TrainingOutput, UpsamplingDecoder
from monai_fewshot.networks.encoders.feature_encoder import FeatureEncoder

from .few_shot_segmenter import FewShotSegmenter

__all__ = ["SurrogateNetwork"]


class SurrogateNetwork(FewShotSegmenter):
    """A few-shot network whose encoder learns a surrogate task besides: restoring corrupted images.

    A decoder on the same encoder restores images without annotations. Both branches run in one :meth:`forward`, so
    that MONAI's trainer, ``DistributedDataParallel`` and ``torch.compile`` take the network as any other. Without
    surrogate images it is the few-shot network.

    Based on: Feyjie et al., "Semi-supervised few-shot learning for medical image segmentation", 2020, sections 1.2 and
    1.3, https://arxiv.org/abs/2003.08462, for any encoder and few-shot network.

    Args:
        few_shot: the few-shot network; its ``encoder`` is shared.
        channels: of the blocks of the restoring decoder. Default: as many blocks as bring the features to the image's
            size, of 64 channels each.

    Raises:
        ValueError: where the few-shot network has no ``encoder``.

    Example:
        >>> from monai_fewshot.networks.encoders import UNetEncoder
        >>> from monai_fewshot.networks.nets import TiledPrototypeNet
        >>> network = SurrogateNetwork(TiledPrototypeNet(2, UNetEncoder(2, 3)))
        >>> image, support, label = torch.rand(2, 3, 64, 64), torch.rand(2, 1, 3, 64, 64), torch.ones(2, 1, 1, 64, 64)
        >>> output = network(image, support, label, torch.rand(2, 5, 3, 64, 64))
        >>> output.logits.shape, output.reconstruction.shape
        (torch.Size([2, 2, 64, 64]), torch.Size([2, 5, 3, 64, 64]))
    """

    def __init__(self, few_shot: FewShotSegmenter, channels: Sequence[int] | None = None) -> None:
        super().__init__()
        encoder = getattr(few_shot, "encoder", None)
        if not isinstance(encoder, FeatureEncoder):
            raise ValueError(f"{type(few_shot).__name__} has no FeatureEncoder as its encoder that could be shared.")
        self.few_shot = few_shot
        widths = [64] * max(1, math.ceil(math.log2(encoder.stride))) if channels is None else channels
        dims = encoder.spatial_dims
        self.decoder = UpsamplingDecoder(dims, encoder.out_channels, widths)
        self.restore = Convolution(dims, widths[-1], encoder.in_channels, kernel_size=1, conv_only=True)

    def encode_support(self, support_image: torch.Tensor, support_label: torch.Tensor) -> Any:
        """Encode the support with the few-shot network."""
        return self.few_shot.encode_support(support_image, support_label)

    def encode_query(self, image: torch.Tensor) -> torch.Tensor:
        """Encode queries with the few-shot network."""
        return self.few_shot.encode_query(image)

    def classify(self, features: torch.Tensor, context: Any, size: Sequence[int]) -> torch.Tensor:
        """Segment encoded queries with the few-shot network."""
        return self.few_shot.classify(features, context, size)

    def forward(
        self,
        image: torch.Tensor,
        support_image: torch.Tensor,
        support_label: torch.Tensor,
        surrogate_image: torch.Tensor | None = None,
    ) -> torch.Tensor | TrainingOutput:
        """Segment queries and, in training, restore surrogate images where there are any.

        Args:
            image: (B, C, *S).
            support_image: (E, K, C, *S).
            support_label: (E, K, 1, *S).
            surrogate_image: corrupted images (B, U, C, *S).

        Returns:
            What the few-shot network returns; in training with the reconstruction (B, U, C, *S).
        """
        segmented = self.few_shot(image, support_image, support_label)
        if surrogate_image is None or not self.training:
            return segmented
        return segmented._replace(reconstruction=self.reconstruct(surrogate_image))

    def reconstruct(self, surrogate_image: torch.Tensor) -> torch.Tensor:
        """Restore corrupted images (B, U, C, *S); returns logits of their intensities, of the same shape."""
        features = self.few_shot.encode_query(surrogate_image.flatten(0, 1))
        restored = self.restore(self.decoder(features, surrogate_image.shape[3:]))
        return restored.unflatten(0, surrogate_image.shape[:2])
