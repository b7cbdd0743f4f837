# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import NamedTuple

import torch
from monai.networks.layers.factories import Pool

__all__ = [
    "PrototypeSet",
    "class_similarity",
    "local_average",
    "masked_average",
    "prototype_similarity",
    "shot_averages",
]

NORM_FLOOR = 1e-4
"""Shorter vectors are not normalized but divided by this, as in the published implementation."""
CPU_SIMILARITIES = 1 << 22
"""Similarities computed at once on a CPU without gradients. Blocks of more memory than this go back to the system when
freed, and fetching them anew for every batch took longer than the arithmetic."""


class PrototypeSet(NamedTuple):
    """Prototypes of a batch of episodes, with the classes that each stands for.

    Local prototypes are pooled from the support without regard to class, so all classes share them and own a part each.

    Attributes:
        local: (B, P, C), one prototype for each pooling cell of each support image.
        owned: (B, N, P), 1 where the cell stands for the class, else 0.
        pooled: (B, N, K, C), class-level prototypes.
        used: (B, N, K), 1 where the class-level prototype is used, else 0.
    """

    local: torch.Tensor
    owned: torch.Tensor
    pooled: torch.Tensor
    used: torch.Tensor


def masked_average(features: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Average features under masks, in their own precision under any autocast.

    Based on: Ouyang et al., "Self-supervision with Superpixels", ECCV 2020, equation 3,
    https://arxiv.org/abs/2007.09886.

    Args:
        features: (B, C, *S).
        masks: (B, N, *S), weights from 0 to 1.

    Returns:
        (B, N, C); zeros for a mask that is empty.
    """
    with torch.autocast(features.device.type, enabled=False):
        masks = masks.flatten(2)
        return masks @ features.flatten(2).mT / (masks.sum(2, keepdim=True) + 1e-5)


def shot_averages(features: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Average features under the masks of each class in each shot, in float32.

    Args:
        features: (B, K, C, *s).
        masks: (B, K, N, *s), weights from 0 to 1.

    Returns:
        Averages (B, K, N, C), zeros where the shot does not show the class, and (B, K, N), 1 where it does, else 0.
    """
    pooled = masked_average(features.flatten(0, 1).float(), masks.flatten(0, 1)).unflatten(0, features.shape[:2])
    return pooled, (masks.flatten(3).sum(3) > 0).to(pooled.dtype)


def local_average(x: torch.Tensor, window: int) -> torch.Tensor:
    """Average over the cells of a grid.

    Based on: Ouyang et al., "Self-supervision with Superpixels", ECCV 2020, equation 1,
    https://arxiv.org/abs/2007.09886.

    Args:
        x: (B, C, *S).
        window: width of a cell in elements of ``x``, cut to the size of ``x`` where that is smaller. What is left
            over at the far borders belongs to no cell.

    Returns:
        (B, C, P), cells in row-major order.
    """
    size = [min(window, n) for n in x.shape[2:]]
    return Pool[Pool.AVG, len(size)](size)(x).flatten(2)


def class_similarity(features: torch.Tensor, prototypes: torch.Tensor, scale: float = 20.0) -> torch.Tensor:
    """Score each class by the cosine similarity of the query to the one prototype of that class.

    Based on: Wang et al., "PANet", ICCV 2019, equation 3, https://arxiv.org/abs/1908.06391.

    Args:
        features: (B, C, *S), computed in float32 under any autocast.
        prototypes: (B or 1, N, C).
        scale: multiplier of the cosine.

    Returns:
        (B, N, *S), float32, between -scale and scale; 0 for a prototype of zeros.
    """
    with torch.autocast(features.device.type, enabled=False):
        query = _unit(features.float().flatten(2), dim=1)
        return (scale * _unit(prototypes.float(), dim=2) @ query).unflatten(2, features.shape[2:])


def prototype_similarity(features: torch.Tensor, prototypes: PrototypeSet, scale: float = 20.0) -> torch.Tensor:
    r"""Score each class by the cosine similarity of the query to the prototypes of that class.

    .. math::
        S_k = \alpha \cos(p_k, f), \qquad S'_c = \sum_{k \in c} S_k \, \mathrm{softmax}_{k \in c}(S_k)

    Similarities to the shared local prototypes are computed once; a softmax over the part of them that a class owns is
    a product with its mask, since ``exp(S)`` neither overflows nor vanishes for ``|S| <= scale``.

    Based on: Ouyang et al., "Self-supervision with Superpixels", ECCV 2020, equations 4 and 5,
    https://arxiv.org/abs/2007.09886.

    Args:
        features: (B, C, *S). Computed in float32 under any autocast: at a scale of 20, half-precision similarities
            are off by a tenth, which the exponential turns into a tenth of the weight.
        prototypes: of batch B or 1; each class with one prototype at least.
        scale: multiplier of the cosine, at most 40.

    Returns:
        (B, N, *S), float32, between -scale and scale.
    """
    at_once = max(1, CPU_SIMILARITIES // (prototypes.local.shape[1] * features[0, 0].numel()))
    if features.device.type == "cpu" and not torch.is_grad_enabled() and features.shape[0] > at_once:
        sets = zip(*(x.expand(features.shape[0], *x.shape[1:]).split(at_once) for x in prototypes), strict=True)
        parts = zip(features.split(at_once), sets, strict=True)
        return torch.cat([_similarity(part, PrototypeSet(*own), scale) for part, own in parts])
    return _similarity(features, prototypes, scale)


def _similarity(features: torch.Tensor, prototypes: PrototypeSet, scale: float) -> torch.Tensor:
    with torch.autocast(features.device.type, enabled=False):
        query = _unit(features.float().flatten(2), dim=1)
        local = scale * _unit(prototypes.local.float(), dim=2) @ query
        pooled = scale * _unit(prototypes.pooled.float(), dim=3).flatten(1, 2) @ query
        pooled = pooled.unflatten(1, prototypes.used.shape[1:])
        local_weight = local.exp()
        pooled_weight = pooled.exp() * prototypes.used.unsqueeze(3)
        total = prototypes.owned @ local_weight + pooled_weight.sum(2)
        score = prototypes.owned @ (local_weight * local) + (pooled_weight * pooled).sum(2)
        return (score / total).unflatten(2, features.shape[2:])


def _unit(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Normalize as ``torch.nn.functional.normalize`` does, whose norm over a strided dimension is slow on a CPU."""
    return x * x.square().sum(dim, keepdim=True).clamp(min=NORM_FLOOR**2).rsqrt()
