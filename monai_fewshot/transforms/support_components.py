# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.transforms.utils import get_largest_connected_component_mask
from monai.utils import TransformBackends
from skimage import measure

from monai_fewshot.utils import IGNORED, EpisodeKeys

__all__ = [
    "ClassParts",
    "KeepClassPartsD",
    "KeepClassPartsDict",
    "KeepClassPartsd",
    "KeepSupportComponents",
    "KeepSupportComponentsD",
    "KeepSupportComponentsDict",
    "KeepSupportComponentsd",
]

Labels = torch.Tensor | Sequence[torch.Tensor]
REACH = 0.2
"""How far off a class may lie, as a share of its distance from the others."""


@dataclass(frozen=True)
class ClassParts:
    """How many connected components each class has in annotated scans, and where it lies.

    Voxels that share a face are connected.

    Attributes:
        counts: the number of components by class number; of several scans the highest.
        centers: the middle of each class in mm, from the middle of all classes of its scan; averaged over scans. Empty
            where places do not matter.
    """

    counts: Mapping[int, int]
    centers: Mapping[int, Sequence[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, labels: Labels, affines: Sequence[torch.Tensor] | torch.Tensor | None = None) -> ClassParts:
        """Look at annotated scans.

        Args:
            labels: (..., H, W, D) of one or several scans, or a list of them.
            affines: (4, 4) of each volume, from array indices to mm. Defaults to None: places do not matter.
        """
        volumes = [volume for label in labels for volume in label.reshape(-1, *label.shape[-3:])]
        counts: dict[int, int] = {}
        offsets: dict[int, list[np.ndarray]] = {}
        for place, volume in enumerate(volumes):
            shown = [n for n in volume.unique().long().tolist() if 0 < n < IGNORED]
            for number in shown:
                components = int(measure.label((volume == number).cpu().numpy(), connectivity=1).max())
                counts[number] = max(counts.get(number, 1), components)
            if affines is not None and shown:
                centers = {n: _center(volume == n, affines[place]) for n in shown}
                middle = np.mean(list(centers.values()), axis=0)
                for number, center in centers.items():
                    offsets.setdefault(number, []).append(center - middle)
        return cls(counts, {n: np.mean(found, axis=0).tolist() for n, found in offsets.items()})

    def keep(self, img: torch.Tensor, affine: torch.Tensor | None = None) -> torch.Tensor:
        """Keep as many components of each class as the annotated scans show, see :class:`KeepSupportComponents`.

        Args:
            img: label map (1, H, W, D), 0 background, 1..N the classes; or a mask (N, H, W, D) of each class.
            affine: (4, 4), from array indices to mm; needed where places matter.

        Returns:
            The same with fewer components.
        """
        result = img.clone()
        numbers = range(1, 1 + len(img)) if len(img) > 1 else img.unique().long().tolist()
        wanted = [number for number in numbers if number > 0]
        masks = {n: (result[n - 1] > 0 if len(img) > 1 else result[0] == n).as_subclass(torch.Tensor) for n in wanted}
        kept = {
            n: get_largest_connected_component_mask(mask, connectivity=1, num_components=self.counts.get(n, 1))
            for n, mask in masks.items()
        }
        if affine is not None and self.centers:
            found = {n: _center(mask, affine) for n, mask in kept.items() if n in self.centers and bool(mask.any())}
            for number in [n for n in found if self.counts.get(n, 1) == 1 and len(found) > 1]:
                kept[number] = self._nearest(number, masks[number], found, affine)
        for number, mask in masks.items():
            channel = result[number - 1] if len(img) > 1 else result[0]
            channel[mask & ~kept[number]] = 0
        return result

    def _nearest(
        self, number: int, mask: torch.Tensor, found: Mapping[int, np.ndarray], affine: torch.Tensor
    ) -> torch.Tensor:
        """Choose the component of a class that is large and near to where another class lets it be expected."""
        others = [other for other in found if other != number]
        steps = np.array([np.subtract(self.centers[number], self.centers[other]) for other in others])
        expected = np.array([found[other] for other in others]) + steps
        reach = REACH * np.linalg.norm(steps, axis=1).mean()
        labeled = measure.label(mask.cpu().numpy(), connectivity=1)
        parts = measure.regionprops(labeled)
        to_mm = affine.double().cpu().numpy()
        centers = [to_mm[:3, :3] @ part.centroid + to_mm[:3, 3] for part in parts]
        misses = [np.linalg.norm(center - expected, axis=1).min() for center in centers]
        scores = [math.log(part.area) - (miss / reach) ** 2 / 2 for part, miss in zip(parts, misses, strict=True)]
        best = parts[int(np.argmax(scores))].label
        return torch.from_numpy(labeled == best).to(mask.device)


def _center(mask: torch.Tensor, affine: torch.Tensor) -> np.ndarray:
    """Return the middle of a mask (H, W, D) in mm."""
    indices = torch.nonzero(mask).double().mean(0).cpu().numpy()
    to_mm = affine.double().cpu().numpy()
    return to_mm[:3, :3] @ indices + to_mm[:3, 3]


class KeepSupportComponents(Transform):
    """Keeps as many components of each class as the support shows: of a class with one component the largest, of one
    with n components the n largest.

    Voxels that share a face are connected. Of several support scans the one with the most components of a class
    counts. A class that the support does not show keeps one. With one component a class it gives what
    ``monai.transforms.KeepLargestConnectedComponent(connectivity=1)`` gives.

    By place, a class of one component keeps not the largest but that with the highest ``log(size) - (d / r)^2 / 2``.
    From each other class that is found, the way in the support leads to where this one is expected; d is the distance
    to the nearest of these places, for the other class may be wrong itself, and r is 0.2 of the mean length of the
    ways. So a large false find far away does not win over a smaller true one.

    Args:
        by_place: whether places matter.

    Example:
        >>> label = torch.tensor([[1, 1, 0, 1, 0, 0, 2, 2, 0, 2]])[None, None]
        >>> support = torch.tensor([[0, 1, 0, 1, 1, 0, 2, 2, 2, 0]])[None, None]
        >>> KeepSupportComponents()(label, support).flatten().tolist()
        [1, 1, 0, 1, 0, 0, 2, 2, 0, 0]
    """

    backend: ClassVar = [TransformBackends.TORCH]

    def __init__(self, by_place: bool = False) -> None:
        self.by_place = by_place

    def __call__(
        self,
        img: torch.Tensor,
        support_label: Labels,
        affine: torch.Tensor | None = None,
        support_affine: Sequence[torch.Tensor] | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Reduce a label map or masks.

        Args:
            img: label map (1, H, W, D), 0 background, 1..N the classes; or a mask (N, H, W, D) of each class.
            support_label: labels (..., H', W', D') of one or several support scans, or a list of them.
            affine: (4, 4) of ``img``, from array indices to mm; needed by place.
            support_affine: (K, 4, 4) of the support scans; needed by place.

        Returns:
            The same with fewer components.
        """
        if not self.by_place:
            return ClassParts.of(support_label).keep(img)
        return ClassParts.of(support_label, support_affine).keep(img, affine)


class KeepClassPartsd(MapTransform):
    """Keeps as many components of each class as annotated scans have shown, where they lay.

    Args:
        keys: label maps (1, H, W, D), with their affine.
        parts: what the annotated scans have shown.
        allow_missing_keys: whether keys may be missing.
    """

    backend = KeepSupportComponents.backend

    def __init__(self, keys: KeysCollection, parts: ClassParts, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.parts = parts

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Reduce the label maps of a dictionary.

        Args:
            data: holds them.

        Returns:
            A copy with the reduced ones.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            label = result[key]
            result[key] = self.parts.keep(label, label.affine if isinstance(label, MetaTensor) else None)
        return result


class KeepSupportComponentsd(MapTransform):
    """Dictionary twin of :class:`KeepSupportComponents`.

    Args:
        keys: label maps or masks.
        support_key: of the support's labels.
        allow_missing_keys: whether keys may be missing.
    """

    backend = KeepSupportComponents.backend

    def __init__(
        self,
        keys: KeysCollection,
        support_key: str = EpisodeKeys.SUPPORT_LABEL,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.support_key = support_key
        self.keep = KeepSupportComponents()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Reduce the label maps or masks of a dictionary.

        Args:
            data: holds them and the support's labels.

        Returns:
            A copy with the reduced ones.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.keep(result[key], data[self.support_key])
        return result


KeepClassPartsD = KeepClassPartsDict = KeepClassPartsd
KeepSupportComponentsD = KeepSupportComponentsDict = KeepSupportComponentsd
