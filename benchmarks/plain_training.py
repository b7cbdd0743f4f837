# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""SSL-ALPNet as its authors train and run it, for comparison; for throughput.py and evaluation_speed.py.

Based on: training.py, dataloaders/ and models/ of
https://github.com/cheng-01037/Self-supervised-Fewshot-Medical-Image-Segmentation, commit a3029d8.

Alike: one episode a step, in float32. Four loader processes make episodes from slices in memory. Each image is
transformed by itself, with its mask as two more channels: an affine resampling, an elastic one of all channels in one
call of SciPy, rounding, and a power of the intensities. Support and query pass the encoder as one batch of two. One
convolution scores all prototypes of a class. The value of the loss is read after every step.

Kinder than the original: the image has one channel in place of three equal ones; the encoder and the optimizer are
those it is compared with, in place of ResNet-101 and SGD.

Harsher: SciPy does the affine resampling and smooths the elastic field. The original has OpenCV for both, with which an
episode of 128 x 128 takes 7 ms of a processor in place of 10; the loader processes hide either where a core is free.

Differs: an episode whose background fills no cell uses the background's class-level prototype, the original skips it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn
from torch.utils.data import DataLoader, Dataset

LOADER_PROCESSES = 4
PREFETCHED = 2 * LOADER_PROCESSES
"""Batches that the loader's processes make ahead."""
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
    channels = np.stack([image, mask == 0, mask == 1], axis=-1, dtype=np.float32)
    turned = np.stack([ndimage.affine_transform(channels[..., c], matrix, offset, order=1) for c in range(3)], axis=-1)
    shift = [10 * scale * ndimage.gaussian_filter(random.uniform(-1, 1, size), 5 * scale) for _ in range(2)]
    places = np.stack(np.meshgrid(*map(np.arange, channels.shape), indexing="ij")).astype(np.float32)
    places[:2] += np.stack(shift)[..., None]
    moved = ndimage.map_coordinates(turned, places, order=1, mode="reflect")
    low, high = moved[..., 0].min(), moved[..., 0].max()
    bright = ((moved[..., 0] - low) / (high - low + 1e-7)) ** random.uniform(0.5, 1.5) * (high - low) + low
    return bright, np.rint(moved[..., 1:]).argmax(-1).astype(np.float32)


def plain_episode(image: np.ndarray, labels: np.ndarray, random: np.random.RandomState) -> list[torch.Tensor]:
    """Make an episode of a slice (H, W) with superpixels: image (1, H, W) and mask of the query, then of the support.

    The mask is that of one superpixel.
    """
    present = np.unique(labels)
    mask = (labels == random.choice(present[present > 0])).astype(np.float32)
    arrays = [array for _ in range(2) for array in plain_transform(image, mask, random)]
    return [torch.from_numpy(array)[None] for array in arrays]


class PlainEpisodes(Dataset):
    """Episodes of random slices that have superpixels; images and labels (D, H, W)."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, length: int) -> None:
        self.images, self.labels, self.length = images, labels, length
        self.drawable = np.flatnonzero(labels.any((1, 2)))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        random = np.random.RandomState(index)
        chosen = random.choice(self.drawable)
        return plain_episode(self.images[chosen], self.labels[chosen], random)

    def loader(self, device: str) -> DataLoader:
        """Return the loader of batches of one for a device."""
        pinned = torch.device(device).type == "cuda"
        return DataLoader(self, batch_size=1, num_workers=LOADER_PROCESSES, pin_memory=pinned)


def plain_scores(
    query: torch.Tensor, support: torch.Tensor, masks: Sequence[torch.Tensor], window: int
) -> torch.Tensor:
    """Score a query (1, C, h, w) class by class; returns (1, N+1, h, w).

    Args:
        query: features.
        support: features (1, C, h, w).
        masks: of the support (h, w), background first.
        window: width of a pooling cell.
    """
    scores = []
    for index, mask in enumerate(masks):
        average = (support * mask).sum((2, 3)) / (mask.sum() + 1e-5)
        cells = F.avg_pool2d(support, window)[0].flatten(1)
        share = F.avg_pool2d(mask[None, None], window).flatten()
        prototypes = cells[:, share > OWNED].T
        if index and F.avg_pool2d(mask[None, None], 4).max() < OWNED:
            prototypes = prototypes[:0]
        if index or not len(prototypes):
            prototypes = torch.cat([prototypes, average])
        similarity = SCALE * F.conv2d(_unit(query), _unit(prototypes)[..., None, None])
        scores.append((similarity * similarity.softmax(1)).sum(1, keepdim=True))
    return torch.cat(scores, dim=1)


def plain_segmentation(
    encoder: nn.Module, image: torch.Tensor, support_image: torch.Tensor, support_mask: torch.Tensor, window: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Score an image (1, C, H, W) by a support of the same size, whose mask is 1 where the class is, else 0.

    Returns:
        Scores (1, 2, h, w), and the features (1, F, h, w) of query and support.
    """
    support, query = encoder(torch.cat([support_image, image])).split(1)
    masks = [plain_resize((support_mask == value).float(), query.shape[2:])[0, 0] for value in (0, 1)]
    return plain_scores(query, support, masks, window), query, support


def plain_loss(
    encoder: nn.Module, episode: Sequence[torch.Tensor], window: int, background_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of one episode, with alignment, and the logits (1, 2, H, W) of its query."""
    image, mask, support_image, support_mask = episode
    size = image.shape[2:]
    scores, query, support = plain_segmentation(encoder, image, support_image, support_mask, window)
    logits = plain_resize(scores, size)
    weight = torch.tensor([background_weight, 1.0], device=image.device)
    loss = F.cross_entropy(logits, mask[:, 0].long(), weight=weight)
    predicted = scores[0].argmax(0)
    turned = plain_scores(support, query, [(predicted == 0).float(), (predicted == 1).float()], window)
    return loss + F.cross_entropy(plain_resize(turned, size), support_mask[:, 0].long()), logits


def plain_resize(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Interpolate (B, C, h, w) to a size."""
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def _unit(x: torch.Tensor) -> torch.Tensor:
    return x / torch.norm(x, dim=1, keepdim=True).clamp(min=1e-4)
