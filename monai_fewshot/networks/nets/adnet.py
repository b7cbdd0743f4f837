# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from monai_fewshot.networks.blocks import (
    class_masks,
    class_similarity,
    foreground_logits,
    linear_resize,
    linear_resize_adjoint,
    masked_average,
)

from .aligning_segmenter import AligningSegmenter

__all__ = ["ADNet"]


class ADNet(AligningSegmenter):
    r"""One prototype of the foreground, and a learned threshold of how much the query may differ from it.

    The background, which is large and of many kinds, has no prototype. The anomaly score of a feature is its negative
    cosine similarity to the foreground's prototype, and what scores below the threshold is foreground:

    .. math::
        S(f) = -\alpha \cos(f, p), \qquad P(f) = 1 - \sigma(\tfrac{1}{2} (S(f) - T))

    In training the segmentation is also turned round (prototype alignment), and ``forward`` returns beside the
    logits those of the support images and :math:`T / \alpha`, which the loss adds, so that the threshold becomes as
    low, and the foreground as compact, as the segmentation allows.

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
        align: whether to return more than the logits in training.

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

    def __init__(
        self,
        spatial_dims: int,
        encoder: nn.Module,
        num_classes: int = 1,
        threshold: float = -10.0,
        scale: float = 20.0,
        align: bool = True,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3) or num_classes < 1:
            raise ValueError(
                f"spatial_dims must be 2 or 3 and num_classes 1 or more, got {spatial_dims} and {num_classes}."
            )
        if not abs(threshold) < scale:
            raise ValueError(f"threshold must lie between -scale and scale, got {threshold} and a scale of {scale}.")
        self.spatial_dims = spatial_dims
        self.encoder = encoder
        self.num_classes = num_classes
        self.scale = scale
        self.align = align
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))

    def prototypes(self, features: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Average features (B, K, F, *s) under the masks of labels (B, K, 1, *S) and over shots.

        Returns:
            (B, N, F), float32.
        """
        masks = class_masks(label.flatten(0, 1), self.num_classes)[:, 1:]
        weights = linear_resize_adjoint(masks, features.shape[3:])
        by_shot = masked_average(features.flatten(0, 1).float(), weights)
        return by_shot.unflatten(0, features.shape[:2]).mean(1)

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

    def align_support(
        self, query: torch.Tensor, scores: torch.Tensor, support: torch.Tensor, size: Sequence[int]
    ) -> torch.Tensor:
        """Segment the support (B, K, F, *s) with the query and its predicted mask; returns (B, K, N+1, *size).

        Minus infinity for a class that the query's prediction does not show, which the loss leaves out.
        """
        masks = class_masks(scores.argmax(1, keepdim=True), self.num_classes)[:, 1:]
        shots = support.shape[1]
        prototypes = masked_average(query.float(), masks).repeat_interleave(shots, 0)
        logits = linear_resize(self.scores(support.flatten(0, 1), prototypes), size).unflatten(0, (-1, shots))
        background, margins = logits[:, :, :1], logits[:, :, 1:]
        unseen = (masks.flatten(2).amax(2) == 0).view(len(masks), 1, -1, *[1] * len(size))
        return torch.cat([background, margins.masked_fill(unseen, -torch.inf)], dim=2)

    def forward(
        self, image: torch.Tensor, support_image: torch.Tensor, support_label: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Segment queries after the example of their supports.

        Args:
            image: (B, C, *S).
            support_image: (B or 1, K, C, *S).
            support_label: (B or 1, K, 1, *S).

        Returns:
            Logits (B, N+1, *S) and, in training with ``align``, the logits of the support images (B, K, N+1, *S) and
            the threshold divided by the scale.
        """
        found = super().forward(image, support_image, support_label)
        return found if isinstance(found, torch.Tensor) else (*found, self.threshold / self.scale)
