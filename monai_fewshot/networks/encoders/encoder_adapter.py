# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.utils import ensure_tuple, ensure_tuple_rep, optional_import
from torch import nn

from .feature_encoder import FeatureEncoder
from .weights import load_encoder_weights

__all__ = ["EncoderAdapter"]


class EncoderAdapter(FeatureEncoder):
    """Any network that maps images to features, or a model of ``timm`` by its name, as an encoder.

    A model of ``timm`` (optional, ``pip install monai_fewshot[timm]``) is made with ``features_only``, and says itself
    how many channels and which stride its features have. Its weights are random, unless ``weights`` names a checkpoint
    or ``options`` has ``pretrained=True``, with which ``timm`` downloads them.

    Args:
        network: from images (B, in_channels, *S) to features (B, F, *s), or to a list of them, coarser from one to the
            next; or the name of a model of ``timm``, for 2D images.
        out_channels: channels F of the features, or of each of the list. Not for a name.
        stride: edge of the image patch, in voxels, that stands behind one of the last features. Not for a name.
        spatial_dims: 2 or 3. Defaults to 2.
        in_channels: channels that the network takes; an image of one channel is repeated to them. Defaults to 3.
        mean: of each channel, or all, taken off the image. Defaults to nothing.
        std: of each channel, or all, by which the image is divided then. Defaults to nothing.
        freeze: whether parameters and statistics of normalization stay as they are, in training too.
        weights: path of a checkpoint, or None for the weights that the network has. A model of ``timm`` reads it in its
            own way, others by :func:`~monai_fewshot.networks.encoders.load_encoder_weights`.
        out_indices: which levels of a model of ``timm`` are features; default the last one.
        options: further arguments of ``timm.create_model``, such as ``{"output_stride": 8}``.

    Raises:
        ValueError: where channels and stride are missing, or given for a name.
        OptionalImportError: where a name is given and ``timm`` is not installed.

    Example:
        >>> convolution = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        >>> encoder = EncoderAdapter(convolution, out_channels=8, stride=2, mean=0.5, std=0.25, freeze=True)
        >>> encoder(torch.rand(1, 1, 32, 33)).shape
        torch.Size([1, 8, 16, 17])
    """

    mean: torch.Tensor | None
    std: torch.Tensor | None

    def __init__(
        self,
        network: nn.Module | str,
        out_channels: int | Sequence[int] | None = None,
        stride: int | None = None,
        spatial_dims: int = 2,
        in_channels: int = 3,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        freeze: bool = False,
        weights: str | None = None,
        out_indices: Sequence[int] = (-1,),
        options: dict[str, Any] | None = None,
    ) -> None:
        if (out_channels is None) != isinstance(network, str) or (stride is None) != isinstance(network, str):
            raise ValueError(
                f"out_channels is {out_channels} and stride {stride}: give both for a network, and neither for a model "
                "of timm, which knows its own."
            )
        if isinstance(network, str):
            loading = {"pretrained": True, "pretrained_cfg_overlay": {"file": weights}} if weights else {}
            found = optional_import("timm")[0].create_model(
                network,
                features_only=True,
                in_chans=in_channels,
                out_indices=tuple(out_indices),
                **{**loading, **(options or {})},
            )
            channels, stride = tuple(found.feature_info.channels()), found.feature_info.reduction()[-1]
        else:
            found, channels = network, tuple(ensure_tuple(out_channels))
            if weights is not None:
                load_encoder_weights(found, weights)
        super().__init__(spatial_dims, in_channels, channels[-1], stride or 0, repeat_single_channel=True)
        self.network: nn.Module = found
        self.channels_last = getattr(found, "output_fmt", None) == "NHWC"
        self._level_channels = channels
        shape = (1, in_channels, *[1] * spatial_dims)
        for name, value in (("mean", mean), ("std", std)):
            fixed = None if value is None else torch.tensor(ensure_tuple_rep(value, in_channels)).float().view(shape)
            self.register_buffer(name, fixed)
        if freeze:
            self.freeze()

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of the features that :meth:`levels` returns."""
        return self._level_channels

    def levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Extract the network's features.

        Args:
            image: (B, in_channels or 1, *S).

        Returns:
            All of them, coarser from one to the next.

        Raises:
            ValueError: if the image has another number of channels, or the features have.
        """
        image = self.check_image(image)
        if self.mean is not None:
            image = image - self.mean
        if self.std is not None:
            image = image / self.std
        found = self.run_stage(self.network, image)
        levels = [found] if isinstance(found, torch.Tensor) else list(found)
        if self.channels_last:
            levels = [level.movedim(-1, 1) for level in levels]
        shapes = [tuple(level.shape) for level in levels]
        if [shape[1] for shape in shapes] != list(self.level_channels):
            raise ValueError(f"The network's features have shapes {shapes}, not {self.level_channels} channels.")
        return levels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Extract features.

        Args:
            image: (B, in_channels or 1, *S).

        Returns:
            The last features, (B, out_channels, *s).

        Raises:
            ValueError: if the image has another number of channels.
        """
        return self.levels(image)[-1]
