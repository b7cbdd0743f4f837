# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from torch import nn

from monai_fewshot.networks.blocks import class_similarity, linear_resize_adjoint, shot_averages

from .prototype_segmenter import PrototypeSegmenter

__all__ = ["PANet"]


class PANet(PrototypeSegmenter):
    """Prototypical network with one prototype a class, aligned between support and query.

    The support's features, brought to the size of its label, are averaged under each class's mask, and over shots. The
    query is segmented by its cosine similarity to these prototypes.

    In training the query with its predicted mask also segments the support images (prototype alignment), see
    :class:`PrototypeSegmenter`.

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

    resize_masks = staticmethod(linear_resize_adjoint)

    def __init__(self, spatial_dims: int, encoder: nn.Module, num_classes: int = 1, align: bool = True) -> None:
        super().__init__(spatial_dims, encoder, num_classes, align)

    def pool_prototypes(self, features: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Average features (E, K, F, *s) under masks (E, K, N+1, *s) and over shots; returns (E, N+1, F), float32.

        A shot that does not show a class adds nothing to the direction of its prototype.
        """
        return shot_averages(features, masks)[0].mean(1)

    def scores(self, features: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Score features (B, F, *s) by their similarity to prototypes (B or 1, N+1, F); returns (B, N+1, *s)."""
        return class_similarity(features, context)
