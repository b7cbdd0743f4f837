# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from monai_fewshot.data import Scan, VolumePreparation
from monai_fewshot.utils import load_network, resize_slices
from monai_fewshot.workflows import TrainedModel

from .coverage import choose_by_coverage
from .scan_features import feature_distances, prepared_image, slice_features

__all__ = ["SliceChooser", "spaced_peaks"]

APART = 6
"""Slices of a scan lie at least this part of its length apart."""
SLICES_AT_ONCE = 16


def spaced_peaks(values: np.ndarray, number: int, apart: int) -> tuple[int, ...]:
    """Choose the places of the highest values that lie apart from one another.

    Args:
        values: one for each place.
        number: how many at most.
        apart: least distance between two places.

    Returns:
        Places, ascending; fewer where there is no more room, or no value above 0.

    Example:
        >>> spaced_peaks(np.array([0.0, 5.0, 4.0, 0.0, 3.0]), 2, 2)
        (1, 4)
    """
    left = np.asarray(values, float).copy()
    chosen: list[int] = []
    while len(chosen) < number and left.max(initial=0.0) > 0:
        place = int(left.argmax())
        chosen.append(place)
        left[max(0, place - apart + 1) : place + apart] = 0
    return tuple(sorted(chosen))


class SliceChooser:
    """Tells which slices of a scan to annotate.

    Where a network knows its classes, those that it is least sure of: the sum over the pixels of the probability of all
    classes but the winner. Without one, those that stand for the others, more of them where the scan changes.

    Args:
        preparation: of scans, without a model.
        model: a network that knows its classes; None for none.
    """

    def __init__(self, preparation: VolumePreparation, model: TrainedModel | None = None) -> None:
        self.preparation = preparation if model is None else model.preparation
        self.network = None
        if model is not None:
            load_network(model.network, model.checkpoints[0])
            self.network, self.size, self.device = model.network.eval(), model.image_size, model.device

    def __call__(self, scan: Scan, number: int) -> tuple[int, ...]:
        """Choose slices.

        Args:
            scan: with ``image``.
            number: how many at most.

        Returns:
            Numbers from 0 along the axis that the network cuts scans along, ascending.
        """
        slices = prepared_image(scan, self.preparation)
        if self.network is None:
            distances = feature_distances(slice_features(slices))
            return tuple(sorted(choice.item for choice in choose_by_coverage(distances, number)))
        return spaced_peaks(self._doubt(slices), number, max(1, len(slices) // APART))

    @torch.no_grad()
    def _doubt(self, slices: torch.Tensor) -> np.ndarray:
        assert self.network is not None
        sums: list[float] = []
        for part in slices.split(SLICES_AT_ONCE):
            size: Sequence[int] = self.size or part.shape[2:]
            logits = self.network(resize_slices(part, size).to(self.device)).float()
            sums += (1 - logits.softmax(1).amax(1)).sum((1, 2)).tolist()
        return np.array(sums)
