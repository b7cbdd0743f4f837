# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar

import nibabel
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.transforms.spatial.functional import orientation
from monai.utils import TraceKeys, TransformBackends

__all__ = ["AlignAxes", "AlignAxesD", "AlignAxesDict", "AlignAxesd", "run_alike"]

SAME = [[0, 1], [1, 1], [2, 1]]


def run_alike(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> bool:
    """Tell whether axes that run along one set of directions need no change to run along another.

    Args:
        one: unit vectors along which rows, columns and slices increase.
        other: likewise.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.transpose(other)
    return AlignAxes(one).order(affine).tolist() == SAME


class AlignAxes(InvertibleTransform):
    """Permute and flip the axes of a volume so that they run as nearly as possible along those of another one.

    Axis codes do not do for oblique scans: short-axis stacks of two hearts, acquired alike, are "PSR" and "LSP", for
    their axes lie near the bisectors between the patient's. Here each axis goes to the one that it is closest to.

    Args:
        directions: unit vectors in the patient's coordinates (RAS) along which the rows, the columns and the slices of
            the other volume increase.

    Example:
        >>> turned = MetaTensor(torch.arange(6).view(1, 1, 2, 3), affine=torch.eye(4)[:, [2, 1, 0, 3]])
        >>> AlignAxes([[1, 0, 0], [0, 1, 0], [0, 0, 1]])(turned).shape
        torch.Size([1, 3, 2, 1])
    """

    backend: ClassVar = [TransformBackends.TORCH]

    def __init__(self, directions: Sequence[Sequence[float]]) -> None:
        self.directions = np.asarray(directions, dtype=float)

    def __call__(self, img: MetaTensor) -> MetaTensor:
        """Align a volume.

        Args:
            img: (C, H, W, D), with its affine in RAS.
        """
        affine = img.affine.numpy()
        return orientation(img, affine, self.order(affine), lazy=False, transform_info=self.get_transform_info())

    def inverse(self, data: MetaTensor) -> torch.Tensor:
        """Bring an aligned volume, or a mask of it, back to the axes it had."""
        transform = self.pop_transform(data)
        order = self.order(np.asarray(transform[TraceKeys.EXTRA_INFO]["original_affine"]))
        back = nibabel.orientations.ornt_transform(SAME, order)
        with self.trace_transform(False):
            return orientation(data, data.affine.numpy(), back, lazy=False, transform_info={})

    def order(self, affine: np.ndarray) -> np.ndarray:
        """Tell where each axis of an array goes, and whether it is flipped.

        Args:
            affine: (4, 4) of the array, to RAS.

        Returns:
            (3, 2), as nibabel's orientations are.
        """
        relative = np.eye(4)
        relative[:3, :3] = self.directions @ affine[:3, :3]
        return nibabel.io_orientation(relative)


class AlignAxesd(MapTransform, InvertibleTransform):
    """Dictionary form of :class:`AlignAxes`.

    Args:
        keys: volumes.
        directions: see :class:`AlignAxes`.
        allow_missing_keys: whether keys may be absent.
    """

    backend = AlignAxes.backend

    def __init__(
        self, keys: KeysCollection, directions: Sequence[Sequence[float]], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = AlignAxes(directions)

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """Align the volumes of a dictionary."""
        return {**data, **{key: self.transform(data[key]) for key in self.key_iterator(dict(data))}}

    def inverse(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, torch.Tensor]:
        """Bring volumes back to the axes they had."""
        return {**data, **{key: self.transform.inverse(data[key]) for key in self.key_iterator(dict(data))}}


AlignAxesD = AlignAxesDict = AlignAxesd
