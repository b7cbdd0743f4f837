# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Training as published scripts do it, for comparison: one episode, its images transformed one by one on the CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn

OWNED = 0.95
SCALE = 20.0


def plain_transform(
    image: np.ndarray, mask: np.ndarray, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Transform an image (H, W) and its mask: an affine resampling, an elastic one, and gamma."""
    size = np.array(image.shape)
    scale = size[1] / 256
    angle, shear = random.uniform(-1, 1, 2) * math.radians(5)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    matrix = turn @ np.array([[1, math.tan(shear)], [0, 1]]) / random.uniform(0.9, 1.2)
    center = (size - 1) / 2
    offset = center - matrix @ (center + random.uniform(-5, 5, 2) * scale)
    noise = random.uniform(-1, 1, (2, *size))
    shift = [10 * scale * ndimage.gaussian_filter(axis, 5 * scale, mode="constant") for axis in noise]
    places = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij")) + np.stack(shift)
    moved = []
    for array, order, mode in ((image, 1, "nearest"), (mask, 0, "constant")):
        turned = ndimage.affine_transform(array, matrix, offset, order=order, mode=mode)
        moved.append(ndimage.map_coordinates(turned, places, order=order, mode=mode))
    low, high = moved[0].min(), moved[0].max()
    moved[0] = ((moved[0] - low) / (high - low + 1e-7)) ** random.uniform(0.5, 1.5) * (high - low) + low
    return moved[0], moved[1]


def plain_episode(image: np.ndarray, labels: np.ndarray, random: np.random.RandomState) -> list[torch.Tensor]:
    """Make an episode of a slice (H, W) with superpixels: image and mask of the query, then of the support."""
    present = np.unique(labels)
    mask = (labels == random.choice(present[present > 0])).astype(np.float32)
    arrays = [array for _ in range(2) for array in plain_transform(image, mask, random)]
    return [torch.from_numpy(np.ascontiguousarray(array, np.float32))[None, None] for array in arrays]


def plain_scores(
    query: torch.Tensor, support: torch.Tensor, masks: Sequence[torch.Tensor], window: int
) -> torch.Tensor:
    """Score a query (C, h, w) by each prototype in turn, class by class; masks (h, w), background first."""
    scores = []
    for index, mask in enumerate(masks):
        average = (support * mask).sum((1, 2)) / (mask.sum() + 1e-5)
        cells = F.avg_pool2d(support[None], window)[0].flatten(1)
        share = F.avg_pool2d(mask[None, None], window).flatten()
        prototypes = list(cells[:, share > OWNED].T)
        if index and F.avg_pool2d(mask[None, None], 4).max() < OWNED:
            prototypes = []
        if index or not prototypes:
            prototypes.append(average)
        similarity = torch.stack(
            [SCALE * F.cosine_similarity(query, prototype[:, None, None], dim=0, eps=1e-4) for prototype in prototypes]
        )
        scores.append((similarity * similarity.softmax(0)).sum(0))
    return torch.stack(scores)


def plain_loss(
    encoder: nn.Module, episode: Sequence[torch.Tensor], window: int, background_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of one episode, with alignment, and the logits (1, 2, H, W) of its query."""
    image, mask, support_image, support_mask = episode
    support, query = encoder(torch.cat([support_image, image]))
    size, small = tuple(image.shape[2:]), tuple(query.shape[1:])
    masks = [_resize(m, small)[0, 0] for m in ((support_mask == 0).float(), (support_mask == 1).float())]
    scores = plain_scores(query, support, masks, window)
    logits = _resize(scores[None], size)
    weight = torch.tensor([background_weight, 1.0], device=image.device)
    loss = F.cross_entropy(logits, mask[:, 0].long(), weight=weight)
    predicted = scores.argmax(0)
    turned = plain_scores(support, query, [(predicted == 0).float(), (predicted == 1).float()], window)
    return loss + F.cross_entropy(_resize(turned[None], size), support_mask[:, 0].long()), logits


def _resize(x: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
