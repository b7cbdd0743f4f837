# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch

from .few_shot_segmenter import FewShotSegmenter, check_support

__all__ = ["PrototypeSegmenter"]


class PrototypeSegmenter(FewShotSegmenter):
    """A few-shot network whose context is pooled from the support's features, which are those of a query.

    Sub-classes implement ``encode_query``, :meth:`prototypes` and ``classify``, and set ``spatial_dims``.

    Attributes:
        spatial_dims: 2 or 3.
    """

    spatial_dims: int

    @abstractmethod
    def prototypes(self, features: torch.Tensor, label: torch.Tensor) -> Any:
        """Pool a context.

        Args:
            features: what ``encode_query`` makes of support images, (B, K, ...).
            label: their labels (B, K, 1, *S), 0 background, 1..N the classes; other values belong to no class.

        Returns:
            The context, batch first.
        """

    def encode_support(self, support_image: torch.Tensor, support_label: torch.Tensor) -> Any:
        """Encode the support images as queries and pool a context.

        Args:
            support_image: (B, K, C, *S).
            support_label: (B, K, 1, *S), 0 background, 1..N the classes; other values belong to no class.

        Returns:
            The context of :meth:`prototypes`.

        Raises:
            ValueError: where images and labels do not fit together.
        """
        check_support(support_image, support_label, self.spatial_dims)
        features = self.encode_query(support_image.flatten(0, 1))
        return self.prototypes(features.unflatten(0, support_image.shape[:2]), support_label)

    def forward(
        self, image: torch.Tensor, support_image: torch.Tensor, support_label: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Segment queries; support and query are encoded as one batch, so that batch normalization sees both.

        Args:
            image: (B, C, *S).
            support_image: (B or 1, K, C, *S).
            support_label: (B or 1, K, 1, *S).

        Returns:
            Logits (B, N+1, *S).

        Raises:
            ValueError: where support and queries do not fit together.
        """
        support, query = self.encode_episode(image, support_image, support_label)
        return self.classify(query, self.prototypes(support, support_label), image.shape[2:])

    def encode_episode(
        self, image: torch.Tensor, support_image: torch.Tensor, support_label: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode support and queries as one batch.

        Args:
            image: (B, C, *S).
            support_image: (B or 1, K, C, *S).
            support_label: (B or 1, K, 1, *S).

        Returns:
            What ``encode_query`` makes of the support, (B or 1, K, ...), and of the queries, (B, ...).

        Raises:
            ValueError: where support and queries do not fit together.
        """
        check_support(support_image, support_label, self.spatial_dims)
        episodes, shots = support_image.shape[:2]
        if episodes not in (1, image.shape[0]) or support_image.shape[2:] != image.shape[1:]:
            raise ValueError(
                f"Support images {tuple(support_image.shape)} do not fit queries {tuple(image.shape)}: expected "
                "(B or 1, K, C, *S) beside (B, C, *S)."
            )
        encoded = self.encode_query(torch.cat([support_image.flatten(0, 1), image]))
        support, query = encoded.split([episodes * shots, len(image)])
        return support.unflatten(0, (episodes, shots)), query
