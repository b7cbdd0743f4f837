# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type
from torch import nn

from monai_fewshot.utils import autocast, resize_slices

from .protocol import Protocol, get_protocols
from .volume_checks import check_query

__all__ = ["ClassVolumeInferer", "winning_margins"]


class ClassVolumeInferer(Inferer):
    """Segments volumes slice by slice with a network that knows its classes and needs no support.

    It gives what :class:`~monai_fewshot.inferers.FewShotVolumeInferer` gives, so that both are evaluated and reported
    alike: channel 0 is 0, channel c the margin of class c, its logit minus the highest of the others. So
    ``result[:, c] > 0`` is where class c wins. A support is accepted and not used. Every slice is segmented; protocols
    differ in which slices are scored, not in the margins.

    ``monai.inferers.SliceInferer`` goes through a volume slice by slice too, but neither brings slices to the network's
    size nor takes the support that an evaluation passes on.

    Args:
        protocol: a protocol or its name, or several; then the result is a dictionary from their names to the margins.
        num_classes: number of classes N; the network gives N+1 channels, background first.
        image_size: height and width in pixels at which the network works. Images are resized by bilinear interpolation
            (smoothed where they shrink), logits back to the volume's own size. Default: the volume's size.
        batch_size: number of slices that go through the network at once.
        dtype: of the network's convolutions and matrix products, as in
            :class:`~monai_fewshot.inferers.AutocastInferer`.

    Raises:
        ValueError: where an argument is out of its range or two protocols have the same name.

    Example:
        >>> inferer = ClassVolumeInferer("whole_volume", num_classes=2)
        >>> inferer(torch.rand(1, 1, 32, 32, 9), torch.nn.Conv2d(1, 3, 1)).shape
        torch.Size([1, 3, 32, 32, 9])
    """

    def __init__(
        self,
        protocol: Protocol | str | Sequence[Protocol | str],
        num_classes: int,
        image_size: Sequence[int] | None = None,
        batch_size: int = 16,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if num_classes < 1 or batch_size < 1:
            raise ValueError(f"num_classes and batch_size must be 1 or more, got {num_classes} and {batch_size}.")
        self.protocols = get_protocols(protocol)
        self.single = isinstance(protocol, (Protocol, str))
        self.num_classes = num_classes
        self.image_size = None if image_size is None else tuple(image_size)
        self.batch_size = batch_size
        self.dtype = dtype

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, network: nn.Module, *support: Any) -> Any:
        """Segment volumes.

        Args:
            inputs: images (B, C, H, W, D), slices along the last axis.
            network: from images (S, C, H, W) to logits (S, N+1, H, W), in evaluation mode.
            support: ignored.

        Returns:
            Margins (B, N+1, H, W, D), float32, of the type of ``inputs`` and with its affine; for several protocols a
            dictionary of them.

        Raises:
            ValueError: where an image holds NaN or infinite values, or the network gives another number of channels.
        """
        check_query(inputs)
        volumes = inputs.as_subclass(torch.Tensor).float()
        with autocast(inputs.device, self.dtype):
            margins = torch.stack([self._segment(volume, network) for volume in volumes])
        result = convert_to_dst_type(margins, inputs, dtype=torch.float32)[0]
        return result if self.single else {protocol.name: result for protocol in self.protocols}

    def _segment(self, volume: torch.Tensor, network: nn.Module) -> torch.Tensor:
        """Segment one volume (C, H, W, D); return (N+1, H, W, D)."""
        slices = volume.permute(3, 0, 1, 2)
        own = slices.shape[2:]
        parts = []
        for image in slices.split(self.batch_size):
            logits = network(resize_slices(image, self.image_size or own)).float()
            if logits.shape[1] != self.num_classes + 1:
                raise ValueError(
                    f"The network gave {logits.shape[1]} channels, not {self.num_classes + 1}: background and "
                    f"{self.num_classes} classes."
                )
            parts.append(winning_margins(resize_slices(logits, own)))
        return torch.cat(parts).permute(1, 2, 3, 0)


def winning_margins(logits: torch.Tensor) -> torch.Tensor:
    """Subtract from each logit (S, N+1, ...) the highest of the others; 0 for the background."""
    highest, second = logits.topk(2, dim=1).values.unbind(1)
    margins = torch.where(logits == highest[:, None], (highest - second)[:, None], logits - highest[:, None])
    margins[:, 0] = 0
    return margins
