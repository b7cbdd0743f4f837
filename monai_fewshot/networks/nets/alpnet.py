# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from monai_fewshot.networks.blocks import PrototypeSet, local_average, masked_average, prototype_similarity

from .prototype_segmenter import PrototypeSegmenter

__all__ = ["ALPNet"]


class ALPNet(PrototypeSegmenter):
    """Prototypical network with adaptive local prototypes.

    The support's features are averaged over the cells of a grid and under each class's mask. A cell that one class
    fills becomes a local prototype of that class. The query is segmented by its cosine similarity to the prototypes.

    In training the query with its predicted mask also segments the support images (prototype alignment), see
    :class:`PrototypeSegmenter`.

    Based on: Ouyang et al., "Self-supervision with Superpixels: Training Few-shot Medical Image Segmentation without
    Annotation", ECCV 2020, section 3.2, https://arxiv.org/abs/2007.09886. With ``local_prototypes=False`` class-level
    prototypes are pooled at the features' size; :class:`PANet` pools them at the mask's.

    Deviation: an episode whose background fills no cell uses the background's class-level prototype. A class that
    fills no 4 x 4 cell has one class-level prototype, averaged over the shots (as the original implementation does);
    else there is one for each shot that shows the class.

    Args:
        spatial_dims: number of spatial dimensions, 2 or 3.
        encoder: network from (B, C, *S) to features (B, F, *s).
        num_classes: number of foreground classes N (ways) in an episode.
        train_window: width of a pooling cell in training, in feature elements.
        eval_window: width of a pooling cell in evaluation mode, in feature elements.
        threshold: part of a cell that a class must exceed to own it, from 0 to 1.
        local_prototypes: whether cells serve as prototypes; else there are class-level prototypes alone.
        align: whether to return the logits of the support images in training.

    Example:
        >>> import torch
        >>> from monai_fewshot.networks.nets import ALPNet
        >>> network = ALPNet(2, torch.nn.Conv2d(1, 8, 3, stride=2, padding=1)).eval()
        >>> support_image, support_label = torch.rand(1, 1, 1, 32, 32), torch.zeros(1, 1, 1, 32, 32)
        >>> support_label[..., 8:24, 8:24] = 1
        >>> context = network.encode_support(support_image, support_label)
        >>> network.segment(torch.rand(5, 1, 32, 32), context).shape
        torch.Size([5, 2, 32, 32])
    """

    aligns_unseen: ClassVar[bool] = True

    def __init__(
        self,
        spatial_dims: int,
        encoder: nn.Module,
        num_classes: int = 1,
        train_window: int = 4,
        eval_window: int = 2,
        threshold: float = 0.95,
        local_prototypes: bool = True,
        align: bool = True,
    ) -> None:
        super().__init__(spatial_dims, encoder, num_classes, align)
        if train_window < 1 or eval_window < 1:
            raise ValueError(f"train_window and eval_window must be 1 or more, got {train_window} and {eval_window}.")
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold}.")
        self.train_window = train_window
        self.eval_window = eval_window
        self.threshold = threshold
        self.local_prototypes = local_prototypes

    def scores(self, features: torch.Tensor, context: PrototypeSet) -> torch.Tensor:
        """Score features (B, F, *s) by their similarity to all prototypes of a class; returns (B, N+1, *s)."""
        return prototype_similarity(features, context)

    def pool_prototypes(self, features: torch.Tensor, masks: torch.Tensor) -> PrototypeSet:
        """Pool local and class-level prototypes.

        Args:
            features: (E, K, F, *s).
            masks: (E, K, N+1, *s), background first, from 0 to 1.

        Returns:
            Prototypes of the N+1 classes. The last class-level prototype is the average over the shots.
        """
        batch, shots = features.shape[:2]
        flat_features, flat_masks = features.flatten(0, 1).float(), masks.flatten(0, 1)
        window = self.train_window if self.training else self.eval_window

        by_shot = masked_average(flat_features, flat_masks).unflatten(0, (batch, shots)).transpose(1, 2)
        pooled = torch.cat([by_shot, by_shot.mean(2, keepdim=True)], dim=2)
        local = local_average(flat_features, window).unflatten(0, (batch, shots))
        cells = local_average(flat_masks, window).unflatten(0, (batch, shots)).transpose(1, 2).flatten(2)
        owned = (cells > self.threshold).to(local.dtype)

        present = masks.flatten(3).sum(3).gt(0).transpose(1, 2)
        coarse = local_average(flat_masks, 4).unflatten(0, (batch, shots)).amax((1, 3))
        use_cells = torch.cat([owned[:, :1].amax(2) > 0, coarse[:, 1:] >= self.threshold], dim=1)
        use_cells = (use_cells & self.local_prototypes).unsqueeze(2)
        foreground = torch.arange(masks.shape[2], device=masks.device).view(1, -1, 1) > 0
        used = torch.cat([use_cells & foreground & present, ~use_cells], dim=2)
        return PrototypeSet(local.transpose(2, 3).flatten(1, 2), owned * use_cells, pooled, used.to(local.dtype))
