# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import StrEnum, TransformBackends, convert_to_dst_type, convert_to_tensor

from monai_fewshot.transforms.preparation.image_checks import keys_beside
from monai_fewshot.utils import IGNORED, device_tensor

__all__ = ["MaskSplitDraw", "RandMaskSplit", "RandMaskSplitD", "RandMaskSplitDict", "RandMaskSplitd", "SplitMode"]


class SplitMode(StrEnum):
    """Which way the line runs that splits a mask."""

    VERTICAL = "vertical"
    HORIZONTAL = "horizontal"
    MIXED = "mixed"


class MaskSplitDraw(NamedTuple):
    """What :class:`RandMaskSplit` draws for one mask.

    Attributes:
        split: whether the mask is split at all.
        vertical: whether the line runs along the columns, so that the halves are left and right.
        slope: pixels by which the line's ends are moved, one each way.
        swap: whether the first half (left, or upper) is the query's.
    """

    split: bool
    vertical: bool
    slope: float
    swap: bool


class RandMaskSplit(RandomizableTransform):
    """Split a mask into two halves, one for the support and one for the query.

    The line runs along an image axis where it halves the mask's pixels; then its ends are moved in opposite directions
    by a slope. In the query's label the support's half is ignored (255): it is not background.

    Based on: Amac et al., "MaskSplit: Self-supervised Meta-learning for Few-shot Semantic Segmentation", WACV 2022,
    section 3.2, https://arxiv.org/abs/2110.12207, and its implementation.

    Deviation: a mask whose smaller half is under ``min_area`` is split without slope, and one that is too small for
    that is not split, where the original drops the image from the batch.

    Args:
        mode: ``"vertical"``, ``"horizontal"``, or ``"mixed"``, either with a probability of one half.
        slope: the ends of the line are moved by up to so many pixels, in images ``REFERENCE_SIZE`` pixels wide; it
            scales with the width. 0 for a line along the axis.
        alternate: whether the halves change sides with a probability of one half; else the support's is the first.
        prob: probability of a split; else both labels are the whole mask.
        min_area: pixels that each half must have in images of ``REFERENCE_SIZE`` squared; scales with the area.

    Raises:
        ValueError: where a number is out of its range.

    Example:
        >>> support, query = RandMaskSplit("vertical", slope=0, alternate=False)(torch.ones(1, 64, 64))
        >>> support[0, 0].sum(), (query[0, 0] == 1).sum(), (query[0, 0] == 255).sum()
        (tensor(32.), tensor(32), tensor(32))
    """

    backend: ClassVar = [TransformBackends.TORCH]
    REFERENCE_SIZE = 400

    def __init__(
        self,
        mode: str = SplitMode.VERTICAL,
        slope: float = 40.0,
        alternate: bool = True,
        prob: float = 1.0,
        min_area: int = 512,
    ) -> None:
        super().__init__(prob)
        if slope < 0 or min_area < 1:
            raise ValueError(f"slope must not be negative and min_area must be positive, got {slope} and {min_area}.")
        self.mode = SplitMode(mode)
        self.slope = slope
        self.alternate = alternate
        self.min_area = min_area
        self._drawn = MaskSplitDraw(False, True, 0.0, False)

    def randomize(self, data: Sequence[int]) -> None:
        """Draw for a mask of spatial size ``data``, (H, W)."""
        self._drawn = self.draw(self.R, data)

    def draw(self, random: np.random.RandomState, size: Sequence[int]) -> MaskSplitDraw:
        """Draw the parameters of one mask.

        Args:
            random: the source of randomness.
            size: (H, W).
        """
        split, vertical, swap = random.random_sample(3) < (self.prob, 0.5, 0.5)
        slope = random.uniform(-self.slope, self.slope) * size[1] / self.REFERENCE_SIZE
        if self.mode != SplitMode.MIXED:
            vertical = self.mode == SplitMode.VERTICAL
        return MaskSplitDraw(bool(split), bool(vertical), slope, bool(swap and self.alternate))

    def apply(self, mask: torch.Tensor, draws: Sequence[MaskSplitDraw]) -> tuple[torch.Tensor, torch.Tensor]:
        """Split a batch.

        Args:
            mask: (B, 1, H, W), above 0 in the mask.
            draws: B draws.

        Returns:
            Labels of support and query, (B, 1, H, W) each: 1 the image's half, and in the query's 255 the support's.
        """
        inside = mask > 0
        numbers = device_tensor([list(draw) for draw in draws], mask.device, torch.float32)
        split, vertical, slope, swap = numbers.view(-1, 4, 1, 1, 1).unbind(1)
        sloped, straight = (
            torch.where(vertical > 0, _beyond_line(inside, moved), _beyond_line(inside.mT, moved).mT)
            for moved in (slope, torch.zeros_like(slope))
        )
        area = self.min_area * mask.shape[2] * mask.shape[3] / self.REFERENCE_SIZE**2
        second = torch.where(_smaller_half(inside, sloped) >= area, sloped, straight)
        is_split = (split > 0) & (_smaller_half(inside, second) >= area)
        of_query = inside & (second ^ (swap > 0))
        of_support = inside & ~of_query
        support = torch.where(is_split, of_support, inside).float()
        query = torch.where(is_split, of_query + IGNORED * of_support.float(), inside.float())
        return support, query

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> tuple[NdarrayOrTensor, NdarrayOrTensor]:
        """Split a mask.

        Args:
            img: (1, H, W), above 0 in the mask.
            randomize: whether to draw anew; else the last draw serves again.

        Returns:
            Labels of support and query, (1, H, W) each, arrays or tensors as ``img``; uint8 where that has integers or
            booleans, which may not hold 255.
        """
        if randomize:
            self.randomize(img.shape[1:])
        data = convert_to_tensor(img, track_meta=False)
        support, query = (label[0] for label in self.apply(data[None], [self._drawn]))
        kind = None if data.is_floating_point() else torch.uint8 if isinstance(img, torch.Tensor) else np.uint8
        return convert_to_dst_type(support, img, dtype=kind)[0], convert_to_dst_type(query, img, dtype=kind)[0]


class RandMaskSplitd(RandomizableTransform, MapTransform):
    """Dictionary form of :class:`RandMaskSplit`: the mask becomes the query's label, beside it stands the support's.

    Args:
        keys: masks, (1, H, W).
        support_key: key to write the support's label under, one for each of the keys.
        allow_missing_keys: whether keys may be absent.
        kwargs: arguments of :class:`RandMaskSplit`.
    """

    backend = RandMaskSplit.backend

    def __init__(
        self,
        keys: KeysCollection = "label",
        support_key: KeysCollection = "support_label",
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, 1.0)
        self.support_key = keys_beside(self.keys, support_key, "support_key")
        self.transform = RandMaskSplit(**kwargs)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandMaskSplitd:
        """Seed the draws."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Split the masks of a dictionary, each with a draw of its own."""
        d = dict(data)
        for key, support_key in self.key_iterator(d, self.support_key):
            d[support_key], d[key] = self.transform(d[key])
        return d


RandMaskSplitD = RandMaskSplitDict = RandMaskSplitd


def _beyond_line(inside: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """Tell for each pixel whether it lies right of the sloped line that halves the masks (B, 1, H, W).

    The column where half of the pixels is reached goes to the side that brings the halves closer.
    """
    reached = inside.sum(2, keepdim=True, dtype=torch.float32).cumsum(3)
    total = reached[..., -1:]
    column = (2 * reached < total).sum(3, keepdim=True).clamp(max=inside.shape[3] - 1)
    with_column = reached.gather(3, column)
    without = torch.where(column > 0, reached.gather(3, (column - 1).clamp(min=0)), 0)
    border = column - (2 * with_column - total > total - 2 * without).int() + 0.5
    height, width = inside.shape[2:]
    rows = torch.linspace(1, -1, height, device=inside.device).view(1, 1, -1, 1)
    return torch.arange(width, device=inside.device) > border + slope * rows


def _smaller_half(inside: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    count = (inside & second).sum((2, 3), keepdim=True)
    return torch.minimum(count, inside.sum((2, 3), keepdim=True) - count)
