# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from monai_fewshot.networks.blocks import (
    class_masks,
    class_similarity,
    linear_resize,
    linear_resize_adjoint,
    masked_average,
)

from .aligning_segmenter import AligningSegmenter

__all__ = ["PANet"]


class PANet(AligningSegmenter):
    """Prototypical network with one prototype a class, aligned between support and query.

    The support's features, brought to the size of its label, are averaged under each class's mask, and over shots. The
    query is segmented by its cosine similarity to these prototypes.

    In training the segmentation is also turned round: the query with its predicted mask serves as the support of the
    support images, and ``forward`` returns their logits too, for :class:`monai_fewshot.losses.EpisodeLoss`. They
    are minus infinity for a class that the query's prediction does not show, which the loss leaves out.

    An N-way K-shot episode has N x K support images, each labeled with all classes that it shows, or with one of them
    and 255 or 0 elsewhere.

    Based on: Wang et al., "PANet: Few-Shot Image Semantic Segmentation with Prototype Alignment", ICCV 2019,
    https://arxiv.org/abs/1908.06391.

    Deviation: features are not brought to the label's size; they are averaged with the weights that the mask gives them
    through that interpolation (:func:`~monai_fewshot.networks.blocks.linear_resize_adjoint`), which is the same sum.

    Args:
        spatial_dims: number of spatial dimensions, 2 or 3.
        encoder: network from (B, C, *S) to features (B, F, *s): the paper's is
            :class:`~monai_fewshot.networks.encoders.VGG16Encoder` with its defaults.
        num_classes: number of foreground classes N (ways) in an episode.
        align: whether to return the logits of the support images in training.

    Raises:
        ValueError: where spatial_dims or num_classes is out of its range.

    Example:
        >>> import torch
        >>> from monai_fewshot.networks.encoders import VGG16Encoder
        >>> from monai_fewshot.networks.nets import PANet
        >>> network = PANet(2, VGG16Encoder()).eval()
        >>> support_image, support_label = torch.rand(1, 5, 1, 32, 32), torch.zeros(1, 5, 1, 32, 32)
        >>> support_label[..., 8:24, 8:24] = 1
        >>> context = network.encode_support(support_image, support_label)
        >>> network.segment(torch.rand(3, 1, 32, 32), context).shape
        torch.Size([3, 2, 32, 32])
    """

    def __init__(self, spatial_dims: int, encoder: nn.Module, num_classes: int = 1, align: bool = True) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        if num_classes < 1:
            raise ValueError(f"num_classes must be 1 or more, got {num_classes}.")
        self.spatial_dims = spatial_dims
        self.encoder = encoder
        self.num_classes = num_classes
        self.align = align

    def prototypes(self, features: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Average features (B, K, F, *s) under the masks of labels (B, K, 1, *S) and over shots.

        A shot that does not show a class adds nothing to the direction of its prototype.

        Returns:
            (B, N+1, F), background first, float32.
        """
        masks = class_masks(label.flatten(0, 1), self.num_classes)
        weights = linear_resize_adjoint(masks, features.shape[3:])
        by_shot = masked_average(features.flatten(0, 1).float(), weights)
        return by_shot.unflatten(0, features.shape[:2]).mean(1)

    def scores(self, features: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Score features (B, F, *s) by their similarity to prototypes (B or 1, N+1, F); returns (B, N+1, *s)."""
        return class_similarity(features, context)

    def align_support(
        self, query: torch.Tensor, scores: torch.Tensor, support: torch.Tensor, size: Sequence[int]
    ) -> torch.Tensor:
        """Segment the support (B, K, F, *s) with the query and its predicted mask; returns (B, K, N+1, *size)."""
        masks = class_masks(scores.argmax(1, keepdim=True), self.num_classes)
        turned = class_similarity(support.transpose(1, 2), masked_average(query.float(), masks))
        logits = linear_resize(turned.flatten(0, 1), size).unflatten(0, turned.shape[:2]).transpose(1, 2)
        unseen = masks.flatten(2).amax(2) == 0
        unseen[:, 0] = False
        return logits.masked_fill(unseen.view(len(unseen), 1, -1, *[1] * len(size)), -torch.inf)
