# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

__all__ = ["FeatureEncoder"]


class FeatureEncoder(nn.Module, ABC):
    """An encoder maps images (B, in_channels, *S) to features (B, out_channels, *ceil(S / stride)).

    Sub-classes pass their input through :meth:`check_image` first, and run their blocks by :meth:`run_stage`.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: channels of the features.
        stride: edge of the image patch, in voxels, that stands behind one feature.
        repeat_single_channel: take an image of one channel too, repeated to ``in_channels``. Defaults to False.

    Attributes:
        checkpointing: whether activations inside a block are computed again in the backward pass instead of kept:
            less memory, a third more arithmetic, the same gradients.
        frozen: whether :meth:`freeze` was called.
    """

    checkpointing = False
    frozen = False

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        stride: int,
        repeat_single_channel: bool = False,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims is {spatial_dims}, must be 2 or 3")
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.repeat_single_channel = repeat_single_channel

    @property
    @abstractmethod
    def level_channels(self) -> tuple[int, ...]:
        """Channels of the features that :meth:`levels` returns."""

    @abstractmethod
    def levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Extract features of several depths.

        Args:
            image: (B, in_channels, *S).

        Returns:
            Features of each level, (B, channels of the level, *s), of one size or several; the last one is what the
            encoder's own features are made of.

        Raises:
            ValueError: if the image has another number of dimensions or of channels.
        """

    def remove_projection(self) -> None:
        """Remove the layer between the last of :meth:`levels` and the encoder's own features, where there is one.

        For networks that use the levels alone, in which nothing would train it.
        """

    def freeze(self) -> None:
        """Keep the parameters and the statistics of normalization as they are, in training too."""
        self.frozen = True
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FeatureEncoder:
        """Set the mode; a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def check_image(self, image: torch.Tensor) -> torch.Tensor:
        """Check the shape of an image, and repeat a single channel where the encoder allows it.

        Args:
            image: (B, in_channels, *S), or (B, 1, *S) with ``repeat_single_channel``.

        Returns:
            The image (B, in_channels, *S).

        Raises:
            ValueError: if the image has another number of dimensions or of channels.
        """
        if image.ndim != self.spatial_dims + 2:
            raise ValueError(
                f"{type(self).__name__} with spatial_dims={self.spatial_dims} needs an image of "
                f"{self.spatial_dims + 2} dimensions (batch, channel, space), got shape {tuple(image.shape)}"
            )
        channels = image.shape[1]
        if channels == 1 and self.repeat_single_channel:
            return image.expand(-1, self.in_channels, *image.shape[2:])
        if channels != self.in_channels:
            raise ValueError(
                f"the image has {channels} channels (shape {tuple(image.shape)}), "
                f"{type(self).__name__} was made for {self.in_channels}; make it with in_channels={channels}"
            )
        return image

    def run_stage(self, block: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
        """Run a block, keeping its activations for the backward pass or not.

        Args:
            block: a part of the encoder.
            inputs: its inputs.

        Returns:
            Its output.
        """
        if self.frozen or not (self.checkpointing and torch.is_grad_enabled()):
            return block(*inputs)
        if torch.compiler.is_compiling():
            return checkpoint(block, *inputs, use_reentrant=False)
        return checkpoint(
            block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_kept(block))
        )


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Keep batch normalization from counting a batch again that is computed again."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    counts = [norm.get_buffer("num_batches_tracked") for norm in norms]
    before = [(norm.momentum, count.clone()) for norm, count in zip(norms, counts, strict=True)]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, count, (momentum, number) in zip(norms, counts, before, strict=True):
            norm.momentum = momentum
            count.copy_(number)
