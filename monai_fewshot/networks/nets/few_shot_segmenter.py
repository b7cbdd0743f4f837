# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils._pytree import tree_map

from monai_fewshot.networks.blocks import TrainingOutput, check_episode, repeat_episodes

__all__ = ["FewShotSegmenter"]


class FewShotSegmenter(nn.Module, ABC):
    """A network that segments query images, using annotated support images as the example.

    A method is split into what depends on the support alone, what depends on the query alone, and the two together,
    so that an inferer computes each of the first two once. Sub-classes implement :meth:`encode_support` and
    :meth:`classify`, and :meth:`encode_query` where part of the work on the query does not need the support.

    A batch has E episodes of K support images each, and B queries. E is B or a divisor of B: episode e serves the
    B / E consecutive queries from number e B / E on.

    A context is a tensor, or a tuple, named tuple or dictionary of tensors, whose first dimension is the episode.

    Attributes:
        separate_contexts: whether contexts are too large to be copied for every query. An inferer then hands them over
            one at a time, each with all its queries, and :meth:`classify` takes those of E episodes.
    """

    separate_contexts: ClassVar[bool] = False

    @abstractmethod
    def encode_support(self, support_image: torch.Tensor, support_label: torch.Tensor) -> Any:
        """Compute everything that depends on the support alone: prototypes, conditioning activations, weights.

        Args:
            support_image: (E, K, C, *S).
            support_label: (E, K, 1, *S), 0 background, 1..N the classes; other values belong to no class.

        Returns:
            The context, episodes first.

        Raises:
            ValueError: where images and labels do not fit together.
        """

    @abstractmethod
    def classify(self, features: torch.Tensor, context: Any, size: Sequence[int]) -> torch.Tensor:
        """Segment encoded queries.

        Args:
            features: what :meth:`encode_query` returned for B queries.
            context: what :meth:`encode_support` returned, of B episodes or one.
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
            context: what :meth:`encode_support` returned, of E episodes.

        Returns:
            Logits (B, N+1, *S).

        Raises:
            ValueError: where E does not divide B.
        """
        return self.classify(self.encode_query(image), self.repeat_context(context, len(image)), image.shape[2:])

    def forward(
        self, image: torch.Tensor, support_image: torch.Tensor, support_label: torch.Tensor
    ) -> torch.Tensor | TrainingOutput:
        """Segment queries, using their supports as the example.

        Args:
            image: (B, C, *S).
            support_image: (E, K, C, *S).
            support_label: (E, K, 1, *S).

        Returns:
            In training the logits (B, N+1, *S) and what else the method's loss needs, by name. In evaluation mode the
            logits alone, which MONAI's evaluators, inferers and metrics take as those of any other network.

        Raises:
            ValueError: where support and queries do not fit together.
        """
        check_episode(support_image, support_label, image)
        logits = self.segment(image, self.encode_support(support_image, support_label))
        return TrainingOutput(logits) if self.training else logits

    def repeat_context(self, context: Any, queries: int) -> Any:
        """Repeat the context of each episode for its queries.

        Args:
            context: what :meth:`encode_support` returned, of E episodes.
            queries: number of queries B.

        Returns:
            The context as :meth:`classify` takes it: of B episodes, or as it is if it is of one, or too large to copy.

        Raises:
            ValueError: where E does not divide B.
        """
        if self.separate_contexts:
            return context
        return tree_map(lambda x: x if len(x) in (1, queries) else repeat_episodes(x, queries), context)
