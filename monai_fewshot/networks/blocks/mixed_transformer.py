# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .mixed_attention import ExternalAttention, GaussianAxialAttention, LocalWindowAttention

__all__ = ["LocalGlobalAttention", "MixedTransformerBlock", "WindowSummary", "join_windows", "partition_windows"]


def partition_windows(grid: torch.Tensor, window: int) -> torch.Tensor:
    """Cut a grid of tokens into square windows, the last ones filled up with zeros.

    Args:
        grid: (B, h, w, C).
        window: edge of a window, in tokens.

    Returns:
        (B, ceil(h / window), ceil(w / window), window², C), the tokens of a window row by row.

    Example:
        >>> partition_windows(torch.rand(2, 7, 8, 16), 4).shape
        torch.Size([2, 2, 2, 16, 16])
    """
    height, width = grid.shape[1:3]
    filled = F.pad(grid, (0, 0, 0, -width % window, 0, -height % window))
    return filled.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3).flatten(3, 4)


def join_windows(windows: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Put windows together again, without what filled them up: the inverse of :func:`partition_windows`.

    Args:
        windows: (B, windows down, windows across, window², C).
        size: (h, w) of the grid.

    Returns:
        (B, h, w, C).

    Example:
        >>> grid = torch.rand(2, 7, 8, 16)
        >>> torch.equal(join_windows(partition_windows(grid, 4), (7, 8)), grid)
        True
    """
    window = round(windows.shape[3] ** 0.5)
    filled = windows.unflatten(3, (window, window)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return filled[:, : size[0], : size[1]]


class WindowSummary(nn.Module):
    """One token for each window: a sum of its tokens, weighted by position as their mean makes it.

        softmax(linear(mean of the tokens)) · tokens

    Based on: Wang et al., Mixed Transformer U-Net for Medical Image Segmentation, ICASSP 2022 (lightweight dynamic
    convolution of LGG-SA), https://arxiv.org/abs/2111.04734.

    Deviation: tokens that fill windows up at the border are left out, where the published network weighs them in.

    Args:
        dim: channels C.
        window: edge of a window, in tokens. Defaults to 4.
    """

    def __init__(self, dim: int, window: int = 4) -> None:
        super().__init__()
        self.weigh = nn.Linear(dim, window**2)

    def forward(self, windows: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """Summarize.

        Args:
            windows: (B, windows down, windows across, window², C).
            real: (1, windows down, windows across, window², 1), False for tokens that only fill a window up, or None
                where there are none.

        Returns:
            (B, windows down, windows across, C).
        """
        if real is None:
            weights = self.weigh(windows.mean(dim=-2))
        else:
            weights = self.weigh((windows * real).sum(dim=-2) / real.sum(dim=-2))
            weights = weights.masked_fill(~real[..., 0], float("-inf"))
        return torch.matmul(torch.softmax(weights, dim=-1).unsqueeze(-2), windows).squeeze(-2)


class LocalGlobalAttention(nn.Module):
    """Attention inside windows, then among their summaries along rows and columns; the two joined at every token.

    The summaries' attention comes back to the tokens by bilinear interpolation, corners aligned.

    Based on: Wang et al., Mixed Transformer U-Net for Medical Image Segmentation, ICASSP 2022 (local-global
    Gaussian-weighted self-attention, LGG-SA), https://arxiv.org/abs/2111.04734.

    Deviation: of grids whose size is no multiple of the window, only their own tokens count. The published network
    fills up with zeros and a copied corner, and lets them count.

    Args:
        dim: channels C, a multiple of ``heads``.
        heads: of the attention inside windows; the other has one. Defaults to 8.
        window: edge of a window, in tokens. Defaults to 4.

    Raises:
        ValueError: if the channels do not divide among the heads.

    Example:
        >>> LocalGlobalAttention(16)(torch.rand(2, 14, 7, 16)).shape
        torch.Size([2, 14, 7, 16])
    """

    def __init__(self, dim: int, heads: int = 8, window: int = 4) -> None:
        super().__init__()
        self.window = window
        self.inside = LocalWindowAttention(dim, heads)
        self.summary = WindowSummary(dim, window)
        self.among = GaussianAxialAttention(dim)
        self.join = nn.Linear(2 * dim, dim)

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        """Attend.

        Args:
            grid: (B, h, w, C).

        Returns:
            (B, h, w, C).
        """
        size, real = grid.shape[1:3], self._real_tokens(grid)
        windows = self.inside(partition_windows(grid, self.window), real)
        spread = self._spread(self.among(self.summary(windows, real)), size)
        return self.join(torch.cat((spread, join_windows(windows, size)), dim=-1))

    def _real_tokens(self, grid: torch.Tensor) -> torch.Tensor | None:
        height, width = grid.shape[1:3]
        if height % self.window == 0 and width % self.window == 0:
            return None
        return partition_windows(torch.ones(1, height, width, 1, dtype=torch.bool, device=grid.device), self.window)

    def _spread(self, summaries: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        down, across = (
            _interpolation(count, self.window, tokens, summaries)
            for count, tokens in zip(summaries.shape[1:3], size, strict=True)
        )
        return torch.einsum("hd,bdwc->bhwc", down, torch.einsum("wa,bdac->bdwc", across, summaries))


def _interpolation(windows: int, window: int, tokens: int, like: torch.Tensor) -> torch.Tensor:
    """Weights (tokens, windows) of linear interpolation with aligned corners, of the first tokens of all windows."""
    places = torch.linspace(0, windows - 1, windows * window, device=like.device)[:tokens]
    return torch.relu(1 - (places[:, None] - torch.arange(windows, device=like.device)).abs()).to(like.dtype)


class MixedTransformerBlock(nn.Module):
    """Local-global self-attention, then external attention, each after layer normalization and beside a shortcut.

    Based on: Wang et al., Mixed Transformer U-Net for Medical Image Segmentation, ICASSP 2022 (mixed Transformer
    module, MTM), https://arxiv.org/abs/2111.04734.

    Args:
        dim: channels C, a multiple of ``heads``.
        heads: number of heads inside windows; external attention has four times as many. Defaults to 8.
        window: edge of a window, in tokens. Defaults to 4.
        memories: number of memories of external attention. Defaults to 64.

    Raises:
        ValueError: if the channels do not divide among the heads.

    Example:
        >>> MixedTransformerBlock(16)(torch.rand(2, 16, 14, 7)).shape
        torch.Size([2, 16, 14, 7])
    """

    def __init__(self, dim: int, heads: int = 8, window: int = 4, memories: int = 64) -> None:
        super().__init__()
        self.norm_self = nn.LayerNorm(dim, eps=1e-6)
        self.self_attention = LocalGlobalAttention(dim, heads, window)
        self.norm_external = nn.LayerNorm(dim, eps=1e-6)
        self.external_attention = ExternalAttention(dim, heads, memories)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Attend.

        Args:
            features: (B, C, h, w).

        Returns:
            (B, C, h, w).
        """
        grid = features.permute(0, 2, 3, 1)
        grid = grid + self.self_attention(self.norm_self(grid))
        tokens = grid.flatten(1, 2)
        tokens = tokens + self.external_attention(self.norm_external(tokens))
        return tokens.unflatten(1, grid.shape[1:3]).permute(0, 3, 1, 2)
