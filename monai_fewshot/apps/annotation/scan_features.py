# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import Dataset

from monai_fewshot.data import Scan, VolumePreparation, read_scans

__all__ = ["feature_distances", "prepared_image", "scan_features", "slice_features"]

GRID = (24, 24, 12)
"""Voxels to which scans are brought; small, so that where organs lie counts, and not noise."""
COMPONENTS = 16


def scan_features(scans: Sequence[Scan], preparation: VolumePreparation) -> np.ndarray:
    """Describe scans without any training: their normalized intensities on a small grid, in principal components.

    Args:
        scans: the scans.
        preparation: brings their axes and intensities into line.

    Returns:
        (n, k), at most 16 components.

    Raises:
        ValueError: where a scan cannot be read.
    """
    vectors = []
    for scan in read_scans(Dataset(list(scans), preparation.transform()), description="comparing scans"):
        image = scan["image"].as_tensor().float()
        height, width, depth = (min(wanted, own) for wanted, own in zip(GRID, image.shape[1:], strict=True))
        pooled = F.adaptive_avg_pool3d(image, (height, width, depth))
        vectors.append(F.interpolate(pooled[None], GRID, mode="nearest-exact").flatten().numpy())
    return _components(np.stack(vectors))


def prepared_image(scan: Scan, preparation: VolumePreparation) -> torch.Tensor:
    """Read a scan as a network sees it.

    Returns:
        (D, C, H, W), its slices.
    """
    image = preparation.transform()({"image": scan["image"]})["image"].as_tensor().float()
    return image.permute(3, 0, 1, 2)


def slice_features(slices: torch.Tensor) -> np.ndarray:
    """Describe the slices of one scan, as :func:`scan_features` describes scans.

    Args:
        slices: (D, C, H, W).

    Returns:
        (D, k).
    """
    return _components(F.adaptive_avg_pool2d(slices, GRID[:2]).flatten(1).numpy())


def feature_distances(features: np.ndarray) -> np.ndarray:
    """Euclidean distances between all pairs, in medians of them.

    Args:
        features: (n, k).

    Returns:
        (n, n); 1 is as far as items usually are from one another.
    """
    distances = np.linalg.norm(features[:, None] - features[None], axis=2)
    usual = np.median(distances[np.triu_indices(len(distances), 1)]) if len(distances) > 1 else 0.0
    return distances / usual if usual > 0 else distances


def _components(vectors: np.ndarray) -> np.ndarray:
    centered = vectors - vectors.mean(0)
    left, scale, _ = np.linalg.svd(centered.astype(np.float64), full_matrices=False)
    return left[:, :COMPONENTS] * scale[:COMPONENTS]
