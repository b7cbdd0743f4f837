# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from monai_fewshot.networks.blocks import linear_resize

from .prototype_segmenter import PrototypeSegmenter

__all__ = ["AligningSegmenter"]


class AligningSegmenter(PrototypeSegmenter):
    """A prototype network whose segmentation is also turned round in training (prototype alignment).

    The query with its predicted mask serves as the support of the support images, and ``forward`` returns their
    logits too, for :class:`monai_fewshot.losses.EpisodeLoss`.

    Sub-classes implement ``prototypes``, :meth:`scores` and :meth:`align_support`, and set ``encoder``,
    ``spatial_dims`` and ``align``.

    Based on: Wang et al., "PANet", ICCV 2019, section 3.4, https://arxiv.org/abs/1908.06391.

    Attributes:
        align: whether to return the logits of the support images in training.
    """

    encoder: torch.nn.Module
    align: bool

    @abstractmethod
    def scores(self, features: torch.Tensor, context: Any) -> torch.Tensor:
        """Score features by their similarity to prototypes.

        Args:
            features: (B, F, *s).
            context: prototypes of batch B or 1.

        Returns:
            (B, N+1, *s), background first.
        """

    @abstractmethod
    def align_support(
        self, query: torch.Tensor, scores: torch.Tensor, support: torch.Tensor, size: Sequence[int]
    ) -> torch.Tensor:
        """Segment the support with the query and its predicted mask as its support.

        Args:
            query: features (B, F, *s).
            scores: of the query (B, N+1, *s).
            support: features (B, K, F, *s).
            size: spatial size of the logits.

        Returns:
            (B, K, N+1, *size), background first.
        """

    def encode_query(self, image: torch.Tensor) -> torch.Tensor:
        """Extract features.

        Args:
            image: (B, C, *S).

        Returns:
            (B, F, *s).
        """
        return self.encoder(image)

    def classify(self, features: torch.Tensor, context: Any, size: Sequence[int]) -> torch.Tensor:
        """Score features by their similarity to prototypes.

        Args:
            features: (B, F, *s).
            context: prototypes of batch B or 1.
            size: spatial size of the logits.

        Returns:
            (B, N+1, *size), background first.
        """
        return linear_resize(self.scores(features, context), size)

    def forward(
        self, image: torch.Tensor, support_image: torch.Tensor, support_label: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Segment queries after the example of their supports.

        Support and query are encoded as one batch, so that batch normalization sees both.

        Args:
            image: (B, C, *S).
            support_image: (B or 1, K, C, *S).
            support_label: (B or 1, K, 1, *S).

        Returns:
            Logits (B, N+1, *S) and, in training with ``align``, the logits of the support images (B, K, N+1, *S).
        """
        support, query = self.encode_episode(image, support_image, support_label)
        scores = self.scores(query, self.prototypes(support, support_label))
        logits = linear_resize(scores, image.shape[2:])
        if not (self.training and self.align):
            return logits
        support = support.expand(query.shape[0], *support.shape[1:])
        return logits, self.align_support(query, scores, support, image.shape[2:])
