# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.utils import convert_to_tensor

from monai_fewshot.data.scans.check_scan import CheckScand
from monai_fewshot.utils import EpisodeKeys

__all__ = ["AcquiredScans"]


class AcquiredScans:
    """Checks scans as they were acquired, and keeps their images until their masks are written.

    It stands right behind the transform that loads scans. So each scan is read once: what is measured and drawn later
    is the image in memory. Scans with a label, which are examples, are not kept. Threads may use it at once.

    Args:
        channels: that an image must have; None for any.
        kept: whether images are kept.

    Example:
        >>> acquired = AcquiredScans()
        >>> _ = acquired({"name": "a", "image": torch.arange(8.0).view(1, 2, 2, 2)})
        >>> acquired.take({"name": "a"})["image"].shape, acquired.images
        (torch.Size([1, 2, 2, 2]), {})
    """

    def __init__(self, channels: int | None = 1, kept: bool = True) -> None:
        self.check = CheckScand(EpisodeKeys.IMAGE, num_channels=channels)
        self.channels = channels
        self.kept = kept
        self.images: dict[str, torch.Tensor] = {}

    def __call__(self, scan: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """Check a loaded scan.

        Args:
            scan: ``name`` and ``image`` (C, H, W, D), and ``label`` where there is one.

        Returns:
            The scan, unchanged.

        Raises:
            ValueError: where it has problems; all are listed.
        """
        self.check(scan)
        if self.kept and EpisodeKeys.LABEL not in scan:
            image = convert_to_tensor(scan[EpisodeKeys.IMAGE], track_meta=False)
            # Channels of colors are normalized in place.
            self.images[scan["name"]] = image if self.channels == 1 else image.clone()
        return scan

    def take(self, scan: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Return the image of a scan, which is then no longer kept.

        Args:
            scan: with ``name``.
        """
        return {EpisodeKeys.IMAGE: self.images.pop(scan["name"])}

    def discard(self, name: str) -> None:
        """Drop the image of a scan that failed, if there is one."""
        self.images.pop(name, None)
