# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai.transforms import Compose, NormalizeIntensityd, ScaleIntensityRanged

from monai_fewshot.transforms.preparation.normalize_channels import IMAGENET_MEAN, IMAGENET_STD, NormalizeChannels
from monai_fewshot.utils import EpisodeKeys

from .image_checks import image_reading
from .image_volumes import ImageAsVolumed

__all__ = ["PicturePreparation"]

KEYS = (EpisodeKeys.IMAGE, EpisodeKeys.LABEL)


class PicturePreparation:
    """What is done to 2D pictures before a network sees them; saved with the network, for all that uses it.

    Args:
        image_size: (H, W) in pixels to which pictures are resized; None for their own.
        channels: 3 for color images, 1 for gray ones.
        mean: what is subtracted from the channels, which are from 0 to 1. By default ImageNet's of the colors, or for
            gray images the mean of these.
        std: what the channels are divided by; by default likewise.

    Attributes:
        normalize: does the last step on batches (B, C, H, W) whose values are from 0 to 1.
        classes: None, for such a network is shown its classes.
    """

    classes = None

    def __init__(
        self,
        image_size: Sequence[int] | None = None,
        channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        self.image_size = None if image_size is None else [int(pixels) for pixels in image_size]
        self.channels = channels
        self.mean = _of_channels(IMAGENET_MEAN, channels) if mean is None else [float(value) for value in mean]
        self.std = _of_channels(IMAGENET_STD, channels) if std is None else [float(value) for value in std]
        self.normalize = NormalizeChannels(self.mean, self.std)

    def settings(self) -> dict[str, Any]:
        """All arguments as plain values."""
        return {"image_size": self.image_size, "channels": self.channels, "mean": self.mean, "std": self.std}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> PicturePreparation:
        """Make a preparation again.

        Args:
            settings: what :meth:`settings` returned.
        """
        return cls(**settings)

    def reading(self) -> Compose:
        """Make the chain that reads a picture and its mask as bytes, for :class:`~monai_fewshot.data.SliceStack`."""
        return image_reading(channels=self.channels)

    def transform(self) -> Compose:
        """Make the chain that reads a picture as a normalized volume of one slice, for what segments volumes."""
        return Compose(
            [
                self.reading(),
                ImageAsVolumed(KEYS, allow_missing_keys=True),
                ScaleIntensityRanged(EpisodeKeys.IMAGE, 0, 255, 0, 1),
                NormalizeIntensityd(EpisodeKeys.IMAGE, self.mean, self.std, channel_wise=True),
            ]
        )


def _of_channels(values: Sequence[float], channels: int) -> list[float]:
    return list(values) if channels == len(values) else [sum(values) / len(values)] * channels
