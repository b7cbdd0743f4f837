# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["ExternalAttention", "GaussianAxialAttention", "LocalWindowAttention", "gaussian_axial_attention"]


def gaussian_axial_attention(
    value: torch.Tensor,
    row_score: torch.Tensor,
    column_score: torch.Tensor,
    shift: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    """Attend to a position's row and to its column, the near ones more than the far ones.

        out[r, c] = sum_j softmax_j(row_score[r, c, j] - (shift (c - j)² + bias)) value[r, j]
                  + sum_i softmax_i(column_score[c, r, i] - (shift (r - i)² + bias)) value[i, c]

    Based on: Wang et al., Mixed Transformer U-Net for Medical Image Segmentation, ICASSP 2022 (Gaussian-weighted axial
    attention of LGG-SA), https://arxiv.org/abs/2111.04734.

    Deviation: all positions at once, where the published code takes one after another. The values agree.

    Args:
        value: (B, h, w, C).
        row_score: (B, h, w, w): row, column of the query, column of the key.
        column_score: (B, w, h, h): column, row of the query, row of the key.
        shift: (1,), what one grid step of distance costs; how narrow the Gaussian is.
        bias: (1,), of the Gaussian's exponent. Each softmax cancels it.

    Returns:
        (B, h, w, C).

    Example:
        >>> value, score = torch.rand(2, 7, 5, 16), torch.zeros(2, 7, 5, 5)
        >>> narrow = gaussian_axial_attention(value, score, torch.zeros(2, 5, 7, 7), torch.ones(1) * 99, torch.ones(1))
        >>> torch.allclose(narrow, 2 * value)
        True
    """
    rows = torch.matmul(_near_first(row_score, shift, bias), value)
    columns = torch.matmul(_near_first(column_score, shift, bias), value.transpose(1, 2))
    return rows + columns.transpose(1, 2)


def _near_first(score: torch.Tensor, shift: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    position = torch.arange(score.shape[-1], device=score.device)
    squared_distance = (position[:, None] - position).square()
    return torch.softmax(score - (shift * squared_distance + bias), dim=-1)


class GaussianAxialAttention(nn.Module):
    """Self-attention along the rows and columns of a grid, weighted by a Gaussian of the distance, with a single head.

    See :func:`gaussian_axial_attention`; the scores are plain products of query and key.

    Based on: Wang et al., Mixed Transformer U-Net for Medical Image Segmentation, ICASSP 2022,
    https://arxiv.org/abs/2111.04734.

    Deviation: the output passes a linear layer, as that of other attention does. The published network has this layer,
    too, and counts it among its parameters, but never applies it. As linear layers follow, both compute the same
    functions.

    Args:
        dim: channels C.

    Example:
        >>> GaussianAxialAttention(16)(torch.rand(2, 7, 5, 16)).shape
        torch.Size([2, 7, 5, 16])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.shift = nn.Parameter(torch.randn(1).abs())
        self.bias = nn.Parameter(-torch.randn(1).abs())

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        """Attend.

        Args:
            grid: (B, h, w, C).

        Returns:
            (B, h, w, C).
        """
        query, key, value = self.qkv(grid).chunk(3, dim=-1)
        row_score = torch.matmul(query, key.transpose(-1, -2))
        column_score = torch.matmul(query.transpose(1, 2), key.permute(0, 2, 3, 1))
        return self.out(gaussian_axial_attention(value, row_score, column_score, self.shift, self.bias))


class LocalWindowAttention(nn.Module):
    """Multi-head self-attention among the tokens of each window.

        softmax(q kᵀ / sqrt(dim / heads)) v, and a linear layer

    Based on: Wang et al., Mixed Transformer U-Net for Medical Image Segmentation, ICASSP 2022 (local attention of
    LGG-SA), https://arxiv.org/abs/2111.04734.

    Deviation: tokens that fill windows up at the border are left out, where the published network attends to them.

    Args:
        dim: channels C, a multiple of ``heads``.
        heads: number of heads. Defaults to 8.

    Raises:
        ValueError: if the channels do not divide among the heads.

    Example:
        >>> LocalWindowAttention(16)(torch.rand(2, 3, 5, 16, 16)).shape
        torch.Size([2, 3, 5, 16, 16])
    """

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__()
        _check_heads(dim, heads)
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, windows: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """Attend.

        Args:
            windows: tokens of each window, (B, windows down, windows across, T, C).
            real: (1, windows down, windows across, T, 1), False for tokens that only fill a window up, or None where
                there are none. A window needs one real token or more.

        Returns:
            (B, windows down, windows across, T, C).
        """
        tokens, dim = windows.shape[-2:]
        qkv = self.qkv(windows).reshape(-1, tokens, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mask = None
        if real is not None:
            mask = real.expand(*windows.shape[:-1], 1).reshape(-1, 1, 1, tokens)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(attended.transpose(1, 2).reshape(windows.shape))


class ExternalAttention(nn.Module):
    """Attention of tokens to learned memories, which all images share, in place of attention to other tokens.

        a = softmax over tokens(q · memory keys), then a / sum over memories(a); out = a · memory values

    The queries have four times the channels of the tokens, and four times the heads of the network.

    Based on: Guo et al., Beyond Self-attention: External Attention using Two Linear Layers for Visual Tasks (double
    normalization), https://arxiv.org/abs/2105.02358, in the multi-head form of Wang et al., Mixed Transformer U-Net for
    Medical Image Segmentation, ICASSP 2022, https://arxiv.org/abs/2111.04734.

    Args:
        dim: channels C, a multiple of ``heads``.
        heads: number of heads of the network's other attention. Defaults to 8, that is 32 heads here.
        memories: number of memories, shared by the heads. Defaults to 64.

    Raises:
        ValueError: if the channels do not divide among the heads.

    Example:
        >>> ExternalAttention(16)(torch.rand(2, 10, 16)).shape
        torch.Size([2, 10, 16])
    """

    EXPANSION = 4

    def __init__(self, dim: int, heads: int = 8, memories: int = 64) -> None:
        super().__init__()
        _check_heads(dim, heads)
        self.heads = self.EXPANSION * heads
        self.query = nn.Linear(dim, self.EXPANSION * dim)
        self.memory_key = nn.Linear(dim // heads, memories)
        self.memory_value = nn.Linear(memories, dim // heads)
        self.out = nn.Linear(self.EXPANSION * dim, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Attend.

        Args:
            tokens: (B, T, C).

        Returns:
            (B, T, C).
        """
        query = self.query(tokens).unflatten(-1, (self.heads, -1))
        attention = torch.softmax(self.memory_key(query), dim=1)
        attention = attention / (attention.sum(dim=-1, keepdim=True) + 1e-9)
        return self.out(self.memory_value(attention).flatten(2))


def _check_heads(dim: int, heads: int) -> None:
    if heads < 1 or dim % heads:
        raise ValueError(f"{dim} channels do not divide among {heads} heads; give a multiple of heads as channels")
