# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from monai.networks.layers.factories import Conv
from monai.networks.nets.resnet import ResNet, get_inplanes
from torch import nn

from .feature_encoder import FeatureEncoder
from .weights import load_encoder_weights

__all__ = ["DilatedResNetEncoder"]

DEPTHS = {18: ("basic", [2, 2, 2, 2]), 50: ("bottleneck", [3, 4, 6, 3]), 101: ("bottleneck", [3, 4, 23, 3])}
STRIDES = (8, 16, 32)


class DilatedResNetEncoder(FeatureEncoder):
    r"""Residual network whose last stages are dilated instead of strided, as in DeepLabV3, without its ASPP.

    Where a stage gives up its stride of 2, the convolution that had it keeps the dilation of the stage before, and all
    that follow double theirs. With the same weights, every feature :math:`f_{32}(x)` of the undilated network is also
    a feature of the dilated one: :math:`f_{32}(x) = f_8(4x)` away from the border's zero padding.

    Parameters are named as torchvision's, so that its classification and DeepLabV3 (COCO) checkpoints load. Parameters
    of the trunk in 2D: 11.2 million (depth 18), 23.5 (50), 42.5 (101).

    Based on: He et al., Deep Residual Learning, CVPR 2016, https://arxiv.org/abs/1512.03385; Chen et al., Rethinking
    Atrous Convolution, 2017, https://arxiv.org/abs/1706.05587. SSL-ALPNet's encoder is depth 101, stride 8 and
    ``out_channels=256``.

    Deviation: a bottleneck's stride stands on its 3x3 convolution, as in torchvision.

    Args:
        depth: 18, 50 or 101. Defaults to 101.
        spatial_dims: 2 or 3; checkpoints are 2D. Defaults to 2.
        in_channels: channels of the image; an image of one channel is repeated to them. Defaults to 3.
        out_channels: channels of the features, by a 1x1 convolution without bias (``reduce``), or None for the 512
            (depth 18) or 2048 channels of the trunk. Defaults to 256.
        stride: 8, 16 or 32. Defaults to 8.
        weights: path or URL of a checkpoint (:func:`~monai_fewshot.networks.encoders.load_encoder_weights`), or None
            for random weights. Defaults to None.

    Raises:
        ValueError: if depth or stride is none of these, or the checkpoint does not fit.

    Example:
        >>> encoder = DilatedResNetEncoder(18).eval()
        >>> encoder(torch.zeros(1, 1, 64, 65)).shape
        torch.Size([1, 256, 8, 9])
    """

    def __init__(
        self,
        depth: int = 101,
        spatial_dims: int = 2,
        in_channels: int = 3,
        out_channels: int | None = 256,
        stride: int = 8,
        weights: str | None = None,
    ) -> None:
        if depth not in DEPTHS:
            raise ValueError(f"depth is {depth}, must be one of {tuple(DEPTHS)}")
        if stride not in STRIDES:
            raise ValueError(f"stride is {stride}, must be one of {STRIDES}")
        block, layers = DEPTHS[depth]
        trunk = ResNet(
            block,
            layers,
            get_inplanes(),
            spatial_dims,
            in_channels,
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=False,
        )
        trunk_channels = trunk.in_planes
        super().__init__(spatial_dims, in_channels, out_channels or trunk_channels, stride, repeat_single_channel=True)
        self.expansion = trunk_channels // get_inplanes()[-1]
        self.conv1, self.bn1, self.act, self.maxpool = trunk.conv1, trunk.bn1, trunk.act, trunk.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4
        if stride < 32:
            _dilate(self.layer4, 32 // stride)
        if stride < 16:
            _dilate(self.layer3, 16 // stride)
        self.reduce: nn.Module = nn.Identity()
        if out_channels is not None:
            self.reduce = Conv[Conv.CONV, spatial_dims](trunk_channels, out_channels, kernel_size=1, bias=False)
        if weights is not None:
            load_encoder_weights(self, weights)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Extract features.

        Args:
            image: (B, in_channels or 1, *S).

        Returns:
            Features (B, out_channels, *ceil(S / stride)).

        Raises:
            ValueError: if the image has another number of channels.
        """
        return self.reduce(self.levels(image)[-1])

    def remove_projection(self) -> None:
        """Remove the 1x1 convolution to ``out_channels``: features are then those of the last block."""
        self.reduce = nn.Identity()
        self.out_channels = self.level_channels[-1]

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of the features that :meth:`levels` returns."""
        return tuple(channels * self.expansion for channels in get_inplanes()[1:])

    def levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Extract the features of the last three blocks.

        Args:
            image: (B, in_channels or 1, *S).

        Returns:
            Features of blocks 2, 3 and 4; with stride 8 of one size.

        Raises:
            ValueError: if the image has another number of channels.
        """
        x = self.maxpool(self.act(self.bn1(self.conv1(self.check_image(image)))))
        found = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer:
                x = self.run_stage(block, x)
            found.append(x)
        return found[1:]


def _dilate(layer: nn.Module, dilation: int) -> None:
    """Replace the stride of 2 of a stage; convolutions after the one that had it are dilated by ``dilation``."""
    for conv in layer.modules():
        if isinstance(conv, (nn.Conv2d, nn.Conv3d)):
            rate = dilation // 2 if conv.stride[0] == 2 else dilation
            dims = len(conv.kernel_size)
            conv.stride = (1,) * dims
            conv.dilation = (rate,) * dims
            conv.padding = (rate * (conv.kernel_size[0] // 2),) * dims
