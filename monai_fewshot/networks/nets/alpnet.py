# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from monai_fewshot.networks.blocks import (
    PrototypeSet,
    class_masks,
    linear_resize,
    local_average,
    masked_average,
    prototype_similarity,
)

from .prototype_segmenter import PrototypeSegmenter

__all__ = ["ALPNet"]


class ALPNet(PrototypeSegmenter):
    """Prototypical network with adaptive local prototypes.

    The support's features are averaged over the cells of a grid and under each class's mask. A cell that one class
    fills becomes a local prototype of that class. The query is segmented by its cosine similarity to the prototypes.

    In training the segmentation is also turned round: the query with its predicted mask serves as the support of the
    support images, and :meth:`forward` returns their logits too, for :class:`monai_fewshot.losses.EpisodeLoss`.

    Based on: Ouyang et al., "Self-supervision with Superpixels: Training Few-shot Medical Image Segmentation without
    Annotation", ECCV 2020, section 3.2, https://arxiv.org/abs/2007.09886. With ``local_prototypes=False`` it is that
    paper's PANet (Wang et al., ICCV 2019, https://arxiv.org/abs/1908.06391).

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
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        if num_classes < 1 or train_window < 1 or eval_window < 1:
            raise ValueError(
                "num_classes, train_window and eval_window must be 1 or more, "
                f"got {num_classes}, {train_window} and {eval_window}."
            )
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold}.")
        self.encoder = encoder
        self.spatial_dims = spatial_dims
        self.num_classes = num_classes
        self.train_window = train_window
        self.eval_window = eval_window
        self.threshold = threshold
        self.local_prototypes = local_prototypes
        self.align = align

    def encode_query(self, image: torch.Tensor) -> torch.Tensor:
        """Extract features.

        Args:
            image: (B, C, *S).

        Returns:
            (B, F, *s).
        """
        return self.encoder(image)

    def prototypes(self, features: torch.Tensor, label: torch.Tensor) -> PrototypeSet:
        """Pool prototypes of the N+1 classes, background first; see :meth:`pool_prototypes`."""
        return self.pool_prototypes(features, self._masks(label, features.shape[3:]))

    def classify(self, features: torch.Tensor, context: PrototypeSet, size: Sequence[int]) -> torch.Tensor:
        """Score features by their similarity to prototypes.

        Args:
            features: (B, F, *s).
            context: prototypes of batch B or 1.
            size: spatial size of the logits.

        Returns:
            (B, N+1, *size).
        """
        return linear_resize(prototype_similarity(features, context), size)

    def forward(
        self, image: torch.Tensor, support_image: torch.Tensor, support_label: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
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
        prototypes = self.prototypes(support, support_label)
        scores = prototype_similarity(query, prototypes)
        logits = linear_resize(scores, image.shape[2:])
        if not (self.training and self.align):
            return logits
        support = support.expand(query.shape[0], *support.shape[1:])
        turned = self._align(query, scores, support)
        return logits, linear_resize(turned.flatten(0, 1), image.shape[2:]).unflatten(0, turned.shape[:2])

    def pool_prototypes(self, features: torch.Tensor, masks: torch.Tensor) -> PrototypeSet:
        """Pool local and class-level prototypes.

        Args:
            features: (B, K, F, *s).
            masks: (B, K, N+1, *s), background first, from 0 to 1.

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

    def _align(self, query: torch.Tensor, scores: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
        """Score the support (B, K, F, *s) with the query (B, F, *s) and its predicted mask as its support."""
        masks = class_masks(scores.argmax(1, keepdim=True), self.num_classes)
        prototypes = self.pool_prototypes(query.unsqueeze(1), masks.unsqueeze(1))
        shots = support.shape[1]
        repeated = PrototypeSet(*(x.repeat_interleave(shots, 0) for x in prototypes))
        return prototype_similarity(support.flatten(0, 1), repeated).unflatten(0, support.shape[:2])

    def _masks(self, label: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Bring labels (B, K, 1, *S) to masks (B, K, N+1, *s) of the features' size."""
        return linear_resize(class_masks(label.flatten(0, 1), self.num_classes), size).unflatten(0, label.shape[:2])
