# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from torch import nn

from monai_fewshot.networks.blocks import (
    TrainingOutput,
    class_similarity,
    foreground_logits,
    linear_resize_adjoint,
    shot_averages,
)

from .prototype_segmenter import PrototypeSegmenter

__all__ = ["ADNet"]


class ADNet(PrototypeSegmenter):
    r"""One prototype of the foreground, and a learned threshold of how much the query may differ from it.

    The background, which is large and of many kinds, has no prototype. The anomaly score of a feature is its negative
    cosine similarity to the foreground's prototype, and what scores below the threshold is foreground:

    .. math::
        S(f) = -\alpha \cos(f, p), \qquad P(f) = 1 - \sigma(\tfrac{1}{2} (S(f) - T))

    In training the query with its predicted mask also segments the support images (prototype alignment), see
    :class:`PrototypeSegmenter`. The auxiliary loss is :math:`T / \alpha`, so that the threshold becomes as low, and the
    foreground as compact, as the segmentation allows.

    Based on: Hansen et al., "Anomaly detection-inspired few-shot medical image segmentation through self-supervision
    with supervoxels", Medical Image Analysis 2022, https://arxiv.org/abs/2203.02048.

    Deviation: margins, not probabilities, are interpolated to the size of the image, and corners are not aligned. All
    classes of an episode share the threshold.

    Args:
        spatial_dims: 2 or 3.
        encoder: network from (B, C, *S) to features (B, F, *s): the paper's is ``DilatedResNetEncoder(101)``.
        num_classes: number of classes N (ways) in an episode.
        threshold: T at the start, between ``-scale`` and ``scale``.
        scale: alpha, positive.
        align: whether to segment the support images too in training.

    Raises:
        ValueError: where an argument is out of its range.

    Example:
        >>> from monai_fewshot.networks.encoders import UNetEncoder
        >>> network = ADNet(2, UNetEncoder()).eval()
        >>> support_image, support_label = torch.rand(1, 1, 1, 64, 64), torch.zeros(1, 1, 1, 64, 64)
        >>> support_label[..., 16:48, 16:48] = 1
        >>> context = network.encode_support(support_image, support_label)
        >>> network.segment(torch.rand(5, 1, 64, 64), context).shape
        torch.Size([5, 2, 64, 64])
    """

    resize_masks = staticmethod(linear_resize_adjoint)

    def __init__(
        self,
        spatial_dims: int,
        encoder: nn.Module,
        num_classes: int = 1,
        threshold: float = -10.0,
        scale: float = 20.0,
        align: bool = True,
    ) -> None:
        super().__init__(spatial_dims, encoder, num_classes, align)
        if not abs(threshold) < scale:
            raise ValueError(f"threshold must lie between -scale and scale, got {threshold} and a scale of {scale}.")
        self.scale = scale
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))

    def pool_prototypes(self, features: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Average features (E, K, F, *s) under masks (E, K, N+1, *s) and over shots; returns (E, N, F), float32."""
        return shot_averages(features, masks[:, :, 1:])[0].mean(1)

    def scores(self, features: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Compare the anomaly of features (B, F, *s) with the threshold.

        Args:
            features: (B, F, *s).
            context: prototypes (B or 1, N, F).

        Returns:
            (B, N+1, *s), 0 for background, whose softmax with one class is the paper's probability.
        """
        anomaly = -class_similarity(features, context, self.scale)
        return foreground_logits((0.5 * (self.threshold - anomaly)).unsqueeze(2))

    def forward(
        self, image: torch.Tensor, support_image: torch.Tensor, support_label: torch.Tensor
    ) -> torch.Tensor | TrainingOutput:
        """Segment queries; in training the auxiliary loss is the threshold divided by the scale."""
        found = super().forward(image, support_image, support_label)
        return found if isinstance(found, torch.Tensor) else found._replace(auxiliary_loss=self.threshold / self.scale)
