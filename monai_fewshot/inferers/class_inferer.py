# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from monai_fewshot.utils import resize_slices

from .protocol import SegmentationProtocol
from .support_encoding import SupportScan
from .volume_inferer import QueryScan, VolumeInferer, winning_margins

__all__ = ["ClassVolumeInferer"]


class ClassVolumeInferer(VolumeInferer):
    """Segments volumes slice by slice with a network that knows its classes and needs no support.

    The network leads from images (S, C, H, W) to logits (S, N+1, H, W). The margin of class c is its logit minus the
    highest of the others; logits are resized to the volume's own size. Networks trained by a softmax with cross-entropy
    are expected, so that margins are log-odds (``log_odds``). A support is accepted and not used. Every slice is
    segmented; protocols differ in which slices are scored, not in the margins.

    ``monai.inferers.SliceInferer`` goes through a volume slice by slice too, but neither brings slices to the network's
    size nor takes the support that an evaluation passes on.

    Args:
        protocol: see :class:`~monai_fewshot.inferers.VolumeInferer`, as all arguments.
        num_classes: that the network must have. Default: as many as it has.
        image_size: that the network works at.
        batch_size: of slices.
        dtype: of convolutions and matrix products.
        neighbor_weight: share that the probabilities of each neighboring slice have in a slice's own, from 0 to below
            0.5: a mask then changes less from slice to slice.

    Raises:
        ValueError: where an argument is out of its range.

    Example:
        >>> inferer = ClassVolumeInferer("whole_volume", num_classes=2)
        >>> inferer(torch.rand(1, 1, 32, 32, 9), torch.nn.Conv2d(1, 3, 1)).shape
        torch.Size([1, 3, 32, 32, 9])
    """

    needs_support = False
    log_odds = True

    def __init__(
        self,
        protocol: SegmentationProtocol | str | Sequence[SegmentationProtocol | str],
        num_classes: int | None = None,
        image_size: Sequence[int] | None = None,
        batch_size: int = 16,
        dtype: torch.dtype = torch.float32,
        neighbor_weight: float = 0.0,
    ) -> None:
        super().__init__(protocol, num_classes, image_size, batch_size, dtype)
        if not 0 <= neighbor_weight < 0.5:
            raise ValueError(f"neighbor_weight is {neighbor_weight}, must lie from 0 to below 0.5.")
        self.neighbor_weight = neighbor_weight

    def segment(self, query: QueryScan, network: Any, scans: Sequence[SupportScan]) -> Sequence[torch.Tensor]:
        """Segment one volume; see :class:`~monai_fewshot.inferers.VolumeInferer`.

        Raises:
            ValueError: where the network gives another number of channels.
        """
        slices = query.image.permute(3, 0, 1, 2)
        own = slices.shape[2:]
        parts = []
        for image in slices.split(self.batch_size):
            logits = network(resize_slices(image, self.image_size or own)).float()
            if self.num_classes is not None and logits.shape[1] != self.num_classes + 1:
                raise ValueError(
                    f"The network gave {logits.shape[1]} channels, not {self.num_classes + 1}: background and "
                    f"{self.num_classes} classes."
                )
            parts.append(logits)
        if self.neighbor_weight:
            parts = list(self._smoothed(torch.cat(parts)).split(self.batch_size))
        margins = [winning_margins(resize_slices(logits, own)) for logits in parts]
        return [torch.cat(margins).permute(1, 2, 3, 0)]

    def _smoothed(self, logits: torch.Tensor) -> torch.Tensor:
        """Mix each slice's probabilities with those of its neighbors; the first and the last stay as they are."""
        probabilities = logits.softmax(1)
        around = probabilities[:-2] + probabilities[2:]
        probabilities[1:-1] = torch.lerp(probabilities[1:-1], around / 2, 2 * self.neighbor_weight)
        return probabilities.clamp_(min=torch.finfo(probabilities.dtype).tiny).log_()
