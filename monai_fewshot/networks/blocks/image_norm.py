# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

__all__ = ["ImageNorm", "with_image_norm"]


class ImageNorm(nn.Module):
    """Normalization by the mean and variance of each image's channels, with a learned scale and shift.

    Instance normalization without running statistics, for any number of spatial dimensions and of one pixel too.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        affine: whether scale and shift are learned.
    """

    weight: torch.Tensor | None
    bias: torch.Tensor | None

    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.register_parameter("weight", nn.Parameter(torch.ones(num_features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_features)) if affine else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize.

        Args:
            x: (B, C, *S).

        Returns:
            (B, C, *S).
        """
        cudnn = torch.backends.cudnn.enabled
        return torch.instance_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, cudnn)


def with_image_norm(network: nn.Module) -> nn.Module:
    """Put :class:`ImageNorm` in the place of every normalization that keeps running statistics, in place.

    Batch normalization does not fit meta-learning: statistics of a batch mix what is in it, and running statistics mix
    tasks, adapted and not. Statistics of each image are those of no other image, so that neither tasks nor the queries
    of a batch can leak into one another, and a prediction does not depend on how many are made at once.

    Args:
        network: any network; names and values of its weights stay what they are.

    Returns:
        The network.
    """
    if isinstance(network, _BatchNorm) or (isinstance(network, _NormBase) and network.track_running_stats):
        replacement = ImageNorm(network.num_features, network.eps, network.affine)
        replacement._parameters.update(network._parameters)
        return replacement
    for name, child in network._modules.items():
        if child is not None:
            setattr(network, name, with_image_norm(child))
    return network
