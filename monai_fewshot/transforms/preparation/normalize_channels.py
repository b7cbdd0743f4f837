# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch

from monai_fewshot.utils import device_tensor

__all__ = ["NormalizeChannels"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class NormalizeChannels:
    """Shift and scale the channels of a batch by constants.

    Of a single image, ``monai.transforms.NormalizeIntensity(subtrahend=mean, divisor=std, channel_wise=True)`` does the
    same. The defaults suit encoders trained on ImageNet.

    Args:
        mean: what is subtracted from each channel, in the unit of the images (colors: 0 to 1).
        std: what each channel is then divided by.

    Raises:
        ValueError: where they differ in length, or a divisor is not positive.

    Example:
        >>> NormalizeChannels([0.5], [0.25])(torch.tensor([[[[0.5, 1.0]]]]))
        tensor([[[[0., 2.]]]])
    """

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"mean and std need one number a channel, std positive ones, got {mean} and {std}.")
        self.mean = tuple(mean)
        self.std = tuple(std)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Normalize.

        Args:
            image: (B, C, *S) with as many channels as numbers were given, or with one, which is then repeated.

        Returns:
            (B, C, *S).

        Raises:
            ValueError: where the image has another number of channels.
        """
        if image.shape[1] not in (1, len(self.mean)):
            raise ValueError(
                f"Images {tuple(image.shape)} have not the {len(self.mean)} channels that mean and std have."
            )
        shape = (1, -1, *[1] * (image.ndim - 2))
        mean, std = (device_tensor(x, image.device, image.dtype).view(shape) for x in (self.mean, self.std))
        return (image - mean) / std
