# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils._pytree import tree_map

from monai_fewshot.networks.blocks import TrainingOutput, check_episode, class_masks, linear_resize, repeat_episodes

from .few_shot_segmenter import FewShotSegmenter

__all__ = ["PrototypeSegmenter"]


class PrototypeSegmenter(FewShotSegmenter):
    """A few-shot network whose context is pooled from the support's features, which are those of a query.

    Sub-classes implement :meth:`pool_prototypes`, and :meth:`scores` where features are compared with prototypes, or
    :meth:`classify` where the two are decoded.

    With ``align`` the segmentation is also turned round in training (prototype alignment): the query with its predicted
    mask serves as the support of the support images. Their logits are among the outputs, for
    :class:`monai_fewshot.losses.EpisodeLoss`.

    Based on: Wang et al., "PANet", ICCV 2019, section 3.4, https://arxiv.org/abs/1908.06391.

    Args:
        spatial_dims: number of spatial dimensions, 2 or 3.
        encoder: network from (B, C, *S) to features (B, F, *s).
        num_classes: number of foreground classes N (ways) in an episode.
        align: whether to segment the support images too in training; takes :meth:`scores`.

    Attributes:
        resize_masks: brings masks (B, N+1, *S) to the size of features.
        aligns_unseen: whether alignment counts a class that the query's prediction does not show. If not, its logits
            are minus infinity, which the loss leaves out.

    Raises:
        ValueError: where spatial_dims or num_classes is out of its range.
    """

    resize_masks = staticmethod(linear_resize)
    aligns_unseen: ClassVar[bool] = False

    def __init__(self, spatial_dims: int, encoder: nn.Module, num_classes: int = 1, align: bool = False) -> None:
        super().__init__()
        if spatial_dims not in (2, 3) or num_classes < 1:
            raise ValueError(
                f"spatial_dims must be 2 or 3 and num_classes 1 or more, got {spatial_dims} and {num_classes}."
            )
        self.spatial_dims = spatial_dims
        self.encoder = encoder
        self.num_classes = num_classes
        self.align = align

    @abstractmethod
    def pool_prototypes(self, features: torch.Tensor, masks: torch.Tensor) -> Any:
        """Pool a context.

        Args:
            features: what :meth:`encode_query` makes of support images, (E, K, F, *s).
            masks: of the classes, background first, at the features' size, (E, K, N+1, *s).

        Returns:
            The context, episodes first.
        """

    def scores(self, features: torch.Tensor, context: Any) -> torch.Tensor:
        """Score features by their similarity to prototypes.

        Args:
            features: (B, F, *s).
            context: of B episodes or one.

        Returns:
            (B, N+1, *s), background first.
        """
        raise NotImplementedError(f"{type(self).__name__} has no scores: implement them, or classify without align.")

    def encode_query(self, image: torch.Tensor) -> torch.Tensor:
        """Extract features.

        Args:
            image: (B, C, *S).

        Returns:
            (B, F, *s).
        """
        return self.encoder(image)

    def classify(self, features: torch.Tensor, context: Any, size: Sequence[int]) -> torch.Tensor:
        """Bring the scores of features (B, F, *s) to a size; returns (B, N+1, *size), background first."""
        return linear_resize(self.scores(features, context), size)

    def prototypes(self, features: torch.Tensor, label: torch.Tensor) -> Any:
        """Pool a context from encoded support images (E, K, F, *s) under the masks of labels (E, K, 1, *S)."""
        masks = self.resize_masks(
            class_masks(label.flatten(0, 1), self.num_classes), features.shape[-self.spatial_dims :]
        )
        return self.pool_prototypes(features, masks.unflatten(0, label.shape[:2]))

    def encode_support(self, support_image: torch.Tensor, support_label: torch.Tensor) -> Any:
        """Encode the support images (E, K, C, *S) as queries and pool the context of :meth:`prototypes`.

        Raises:
            ValueError: where images and labels do not fit together.
        """
        check_episode(support_image, support_label)
        features = self.encode_query(support_image.flatten(0, 1))
        return self.prototypes(features.unflatten(0, support_image.shape[:2]), support_label)

    def forward(
        self, image: torch.Tensor, support_image: torch.Tensor, support_label: torch.Tensor
    ) -> torch.Tensor | TrainingOutput:
        """Segment queries, using their supports as the example.

        Support and query are encoded as one batch, so that batch normalization sees both.

        Args:
            image: (B, C, *S).
            support_image: (E, K, C, *S).
            support_label: (E, K, 1, *S).

        Returns:
            In training the logits (B, N+1, *S) and, with ``align``, those of the support images (B, K, N+1, *S), by
            name; in evaluation mode the logits alone.

        Raises:
            ValueError: where support and queries do not fit together.
        """
        check_episode(support_image, support_label, image)
        queries, size = len(image), image.shape[2:]
        encoded = self.encode_query(torch.cat([support_image.flatten(0, 1), image]))
        of_support, query = encoded.split([len(encoded) - queries, queries])
        support = of_support.unflatten(0, support_image.shape[:2])
        context = self.repeat_context(self.prototypes(support, support_label), queries)
        if not (self.training and self.align):
            logits = self.classify(query, context, size)
            return TrainingOutput(logits) if self.training else logits
        scores = self.scores(query, context)
        turned = self._align(query, scores, repeat_episodes(support, queries), size)
        return TrainingOutput(linear_resize(scores, size), turned)

    def _align(
        self, query: torch.Tensor, scores: torch.Tensor, support: torch.Tensor, size: Sequence[int]
    ) -> torch.Tensor:
        """Segment the support (B, K, F, *s) with the query and its predicted mask; returns (B, K, N+1, *size)."""
        masks = class_masks(scores.argmax(1, keepdim=True), self.num_classes)
        context = self.pool_prototypes(query.unsqueeze(1), masks.unsqueeze(1))
        by_shot = tree_map(lambda x: x.repeat_interleave(support.shape[1], 0), context)
        logits = self.classify(support.flatten(0, 1), by_shot, size).unflatten(0, support.shape[:2])
        if self.aligns_unseen:
            return logits
        unseen = masks.flatten(2).amax(2) == 0
        unseen[:, 0] = False
        return logits.masked_fill(unseen.view(len(unseen), 1, -1, *[1] * len(size)), -torch.inf)
