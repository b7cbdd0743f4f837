# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from monai_fewshot.networks.blocks import (
    LocalGlobalAttention,
    MixedTransformerBlock,
    WindowSummary,
    join_windows,
    partition_windows,
)

SIZES = [(4, 4), (8, 12), (7, 8), (14, 7), (1, 2), (1, 1), (5, 3)]


@pytest.mark.parametrize("size", SIZES)
def test_windows_and_back(size):
    grid = torch.randn(2, *size, 3)
    windows = partition_windows(grid, 4)
    assert windows.shape == (2, -(-size[0] // 4), -(-size[1] // 4), 16, 3)
    assert torch.equal(join_windows(windows, size), grid)
    assert (windows != 0).sum() == grid.numel()


def test_tokens_of_a_window_row_by_row():
    grid = torch.arange(36).reshape(1, 6, 6, 1)
    windows = partition_windows(grid, 3)[..., 0]
    assert windows[0, 0, 1].tolist() == [3, 4, 5, 9, 10, 11, 15, 16, 17]
    assert windows[0, 1, 0].tolist() == [18, 19, 20, 24, 25, 26, 30, 31, 32]


def test_summary_against_loop():
    torch.manual_seed(0)
    summary, windows = WindowSummary(6, window=2), torch.randn(2, 2, 1, 4, 6)
    real = torch.tensor([True, True, True, False]).reshape(1, 1, 1, 4, 1).expand(1, 2, 1, 4, 1)
    whole, part = summary(windows), summary(windows, real)
    for b in range(2):
        for i in range(2):
            tokens = windows[b, i, 0]
            weights = summary.weigh(sum(tokens) / 4).softmax(0)
            torch.testing.assert_close(whole[b, i, 0], sum(w * t for w, t in zip(weights, tokens, strict=True)))
            weights = summary.weigh(sum(tokens[:3]) / 3)[:3].softmax(0)
            torch.testing.assert_close(part[b, i, 0], sum(w * t for w, t in zip(weights, tokens[:3], strict=True)))


@pytest.mark.parametrize("size", SIZES)
def test_local_global_attention_window_by_window(size):
    """Windows at the border cut to their own tokens, and PyTorch's interpolation with aligned corners."""
    torch.manual_seed(1)
    attention = LocalGlobalAttention(8, heads=2)
    grid = torch.randn(2, *size, 8)
    down, across = (-(-edge // 4) for edge in size)
    inside, summaries = torch.zeros_like(grid), torch.zeros(2, down, across, 8)
    for i in range(down):
        for j in range(across):
            part = (slice(None), slice(4 * i, 4 * i + 4), slice(4 * j, 4 * j + 4))
            tokens = grid[part].flatten(1, 2)
            found = attention.inside(tokens[:, None, None])[:, 0, 0]
            inside[part] = found.unflatten(1, grid[part].shape[1:3])
            rows, columns = grid[part].shape[1:3]
            places = [4 * r + c for r in range(rows) for c in range(columns)]
            weights = attention.summary.weigh(found.mean(1))[:, places].softmax(1)
            summaries[:, i, j] = (weights[..., None] * found).sum(1)
    spread = attention.among(summaries).permute(0, 3, 1, 2)
    spread = F.interpolate(spread, (4 * down, 4 * across), mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    expected = attention.join(torch.cat((spread[:, : size[0], : size[1]], inside), -1))
    torch.testing.assert_close(attention(grid), expected, rtol=1e-5, atol=1e-5)


def test_block_is_two_residual_steps():
    torch.manual_seed(2)
    block, features = MixedTransformerBlock(16), torch.randn(2, 16, 6, 5)
    x = features.permute(0, 2, 3, 1)
    x = x + block.self_attention(F.layer_norm(x, (16,), eps=1e-6))
    x = x.reshape(2, 30, 16)
    x = x + block.external_attention(F.layer_norm(x, (16,), eps=1e-6))
    torch.testing.assert_close(block(features), x.reshape(2, 6, 5, 16).permute(0, 3, 1, 2))


def test_attention_reaches_the_ends_of_its_rows_and_columns_of_windows():
    torch.manual_seed(3)
    features = torch.randn(1, 8, 16, 16, requires_grad=True)
    LocalGlobalAttention(8)(features.permute(0, 2, 3, 1))[0, 0, 0].sum().backward()
    reached = features.grad.abs().sum((0, 1)) > 0
    assert reached[:4].all()
    assert reached[:, :4].all()


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1)])
def test_gradients_and_values_in_mixed_precision(size):
    torch.manual_seed(4)
    block, features = MixedTransformerBlock(16), torch.randn(2, 16, *size, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = block(features)
    torch.testing.assert_close(found.float(), block(features), rtol=0.05, atol=0.05)
    found.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in (*block.parameters(), features))


def test_heads_that_do_not_divide_named():
    with pytest.raises(ValueError, match="20 channels do not divide among 8 heads"):
        MixedTransformerBlock(20)
