# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["TrainingOutput", "TrainingTarget", "check_episode", "repeat_episodes"]


class TrainingOutput(NamedTuple):
    """What a network returns in training, by name; None is what its method does not have.

    In evaluation mode networks return plain logits, so that MONAI's evaluators, inferers and metrics work unchanged.

    Attributes:
        logits: of the queries, (B, N+1, *S), background first.
        support_logits: of the support images, segmented with the query as the example, (B, K, N+1, *S).
        auxiliary_loss: a scalar that the method adds to its loss, such as ADNet's threshold.
        reconstruction: restored images of a surrogate task, (B, U, C, *S), as logits of their intensities.
        embedding: features that a loss compares, (B, E, *s).
    """

    logits: torch.Tensor
    support_logits: torch.Tensor | None = None
    auxiliary_loss: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    embedding: torch.Tensor | None = None


class TrainingTarget(NamedTuple):
    """What the output for a batch of episodes is compared with.

    Attributes:
        label: of the queries, (B, 1, *S), 0 background, 1..N the classes.
        support_label: (E, K, 1, *S).
        reconstruction: the images that a surrogate task restores, (B, U, C, *S), intensities from 0 to 1.
    """

    label: torch.Tensor
    support_label: torch.Tensor
    reconstruction: torch.Tensor | None = None


def check_episode(support_image: torch.Tensor, support_label: torch.Tensor, image: torch.Tensor | None = None) -> None:
    """Check that supports fit their labels and, where there are any, the queries.

    Args:
        support_image: (E, K, C, *S).
        support_label: (E, K, 1, *S).
        image: queries (B, C, *S), B a multiple of E.

    Raises:
        ValueError: where they do not.
    """
    expected = (*support_image.shape[:2], 1, *support_image.shape[3:])
    if support_image.ndim not in (5, 6) or support_label.shape != expected:
        raise ValueError(
            f"support_image {tuple(support_image.shape)} and support_label {tuple(support_label.shape)} do not fit: "
            "expected (E, K, C, *S) and (E, K, 1, *S) with 2 or 3 spatial dimensions."
        )
    if image is not None and (image.shape[1:] != support_image.shape[2:] or len(image) % len(support_image)):
        raise ValueError(
            f"Support images {tuple(support_image.shape)} do not fit queries {tuple(image.shape)}: expected "
            "(E, K, C, *S) beside (B, C, *S), where E divides B."
        )


def repeat_episodes(x: torch.Tensor, queries: int) -> torch.Tensor:
    """Repeat what belongs to an episode for each of its queries.

    Args:
        x: (E, ...).
        queries: number of queries B, of which each episode serves B / E consecutive ones.

    Returns:
        (B, ...).

    Raises:
        ValueError: where the episodes cannot share the queries evenly.

    Example:
        >>> repeat_episodes(torch.tensor([1, 2]), 6)
        tensor([1, 1, 1, 2, 2, 2])
    """
    if queries % len(x):
        raise ValueError(f"{queries} queries cannot be dealt out to {len(x)} episodes, of shape {tuple(x.shape)}.")
    return x.unsqueeze(1).expand(-1, queries // len(x), *x.shape[1:]).flatten(0, 1)
