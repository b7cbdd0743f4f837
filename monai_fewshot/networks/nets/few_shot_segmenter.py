# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

__all__ = ["FewShotSegmenter", "check_support"]


class FewShotSegmenter(nn.Module, ABC):
    """A network that segments a query image after the example of annotated support images.

    A method is split into what depends on the support alone, what depends on the query alone, and the two together,
    so that an inferer computes each of the first two once. Sub-classes implement :meth:`encode_support` and
    :meth:`classify`, and :meth:`encode_query` where part of the work on the query does not need the support.

    A context is a tensor, or a tuple, named tuple or dictionary of tensors, whose first dimension is the episode.
    A context of batch 1 serves any number of queries.

    Attributes:
        separate_contexts: whether contexts are too large to be copied for every query. An inferer then hands them over
            one at a time, each with all its queries.
    """

    separate_contexts: ClassVar[bool] = False

    @abstractmethod
    def encode_support(self, support_image: torch.Tensor, support_label: torch.Tensor) -> Any:
        """Compute everything that depends on the support alone: prototypes, conditioning activations, weights.

        Args:
            support_image: (B, K, C, *S).
            support_label: (B, K, 1, *S), 0 background, 1..N the classes.

        Returns:
            The context, batch first.
        """

    @abstractmethod
    def classify(self, features: torch.Tensor, context: Any, size: Sequence[int]) -> torch.Tensor:
        """Segment encoded queries.

        Args:
            features: what :meth:`encode_query` returned for B queries.
            context: what :meth:`encode_support` returned, of batch B or 1.
            size: spatial size of the logits.

        Returns:
            Logits (B, N+1, *size), background first.
        """

    def encode_query(self, image: torch.Tensor) -> torch.Tensor:
        """Compute what depends on the query alone; here the image itself.

        Args:
            image: (B, C, *S).

        Returns:
            Features, batch first.
        """
        return image

    def segment(self, image: torch.Tensor, context: Any) -> torch.Tensor:
        """Segment queries with an encoded support.

        Args:
            image: (B, C, *S).
            context: what :meth:`encode_support` returned, of batch B or 1.

        Returns:
            Logits (B, N+1, *S).
        """
        return self.classify(self.encode_query(image), context, image.shape[2:])

    def forward(
        self, image: torch.Tensor, support_image: torch.Tensor, support_label: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Segment queries after the example of their supports.

        Args:
            image: (B, C, *S).
            support_image: (B or 1, K, C, *S).
            support_label: (B or 1, K, 1, *S).

        Returns:
            Logits (B, N+1, *S); in training a method may return a tuple of them and what else its loss needs.
        """
        return self.segment(image, self.encode_support(support_image, support_label))


def check_support(support_image: torch.Tensor, support_label: torch.Tensor, spatial_dims: int) -> None:
    """Check that images and labels of a support fit together.

    Args:
        support_image: (B, K, C, *S).
        support_label: (B, K, 1, *S).
        spatial_dims: 2 or 3.

    Raises:
        ValueError: where they do not.
    """
    dims = spatial_dims + 3
    if support_image.ndim != dims or support_label.ndim != dims:
        raise ValueError(
            f"support_image and support_label need {dims} dimensions, (B, K, C, *S) and (B, K, 1, *S), "
            f"got shapes {tuple(support_image.shape)} and {tuple(support_label.shape)}."
        )
    if support_label.shape != (*support_image.shape[:2], 1, *support_image.shape[3:]):
        raise ValueError(
            f"support_image {tuple(support_image.shape)} and support_label {tuple(support_label.shape)} differ in "
            "episodes, shots or spatial size, or the label has more than one channel."
        )
