# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.transforms.utils import get_largest_connected_component_mask
from monai.utils import TransformBackends
from skimage import measure

from monai_fewshot.utils import EpisodeKeys

__all__ = [
    "KeepSupportComponents",
    "KeepSupportComponentsD",
    "KeepSupportComponentsDict",
    "KeepSupportComponentsd",
]

Labels = torch.Tensor | Sequence[torch.Tensor]


class KeepSupportComponents(Transform):
    """Keeps as many components of each class as the support shows: of a class with one component the largest, of one
    with n components the n largest.

    Voxels that share a face are connected. Of several support scans the one with the most components of a class
    counts. A class that the support does not show keeps one. With one component a class it gives what
    ``monai.transforms.KeepLargestConnectedComponent(connectivity=1)`` gives.

    Example:
        >>> label = torch.tensor([[1, 1, 0, 1, 0, 0, 2, 2, 0, 2]])[None, None]
        >>> support = torch.tensor([[0, 1, 0, 1, 1, 0, 2, 2, 2, 0]])[None, None]
        >>> KeepSupportComponents()(label, support).flatten().tolist()
        [1, 1, 0, 1, 0, 0, 2, 2, 0, 0]
    """

    backend: ClassVar = [TransformBackends.TORCH]

    def __call__(self, img: torch.Tensor, support_label: Labels) -> torch.Tensor:
        """Reduce a label map or masks.

        Args:
            img: label map (1, H, W, D), 0 background, 1..N the classes; or a mask (N, H, W, D) of each class.
            support_label: labels (..., H', W', D') of one or several support scans, or a list of them.

        Returns:
            The same with fewer components.
        """
        volumes = [volume for label in support_label for volume in label.reshape(-1, *label.shape[-3:])]
        result = img.clone()
        numbers = range(1, 1 + len(img)) if len(img) > 1 else img.unique().long().tolist()
        for number in (n for n in numbers if n > 0):
            channel = result[number - 1] if len(img) > 1 else result[0]
            mask = channel > 0 if len(img) > 1 else channel == number
            counts = (measure.label((volume == number).cpu().numpy(), connectivity=1).max() for volume in volumes)
            kept = get_largest_connected_component_mask(mask, connectivity=1, num_components=max(1, *map(int, counts)))
            channel[mask & ~kept] = 0
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


KeepSupportComponentsD = KeepSupportComponentsDict = KeepSupportComponentsd
