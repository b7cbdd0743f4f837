# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_fewshot.networks.blocks import (
    ExternalAttention,
    GaussianAxialAttention,
    LocalWindowAttention,
    gaussian_axial_attention,
    partition_windows,
)

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def golden(golden_dir):
    with np.load(golden_dir / "mt_unet_attention.npz") as arrays:
        return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays}


def _softmax(scores):
    weights = [math.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]


def _axial_loop(value, row_score, column_score, shift, bias):
    """Position by position, in plain Python."""
    value, row_score, column_score = (x.detach().double().numpy() for x in (value, row_score, column_score))
    images, height, width, _ = value.shape
    result = np.zeros_like(value)
    for b in range(images):
        for r in range(height):
            for c in range(width):
                row = _softmax([row_score[b, r, c, j] - (shift * (c - j) ** 2 + bias) for j in range(width)])
                column = _softmax([column_score[b, c, r, i] - (shift * (r - i) ** 2 + bias) for i in range(height)])
                result[b, r, c] = sum(row[j] * value[b, r, j] for j in range(width))
                result[b, r, c] += sum(column[i] * value[b, i, c] for i in range(height))
    return torch.from_numpy(result).float()


def _qkv(layer, x):
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    return np.split(x @ weight.T + bias, 3, axis=-1)


def _linear(layer, x):
    return x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()


def _window_loop(attention, tokens):
    """One window (T, C), head by head and token by token."""
    query, key, value = _qkv(attention.qkv, tokens)
    width = tokens.shape[-1] // attention.heads
    joined = np.zeros_like(tokens)
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        for t in range(len(tokens)):
            scores = [float(query[t, part] @ key[u, part]) / math.sqrt(width) for u in range(len(tokens))]
            joined[t, part] = sum(w * value[u, part] for u, w in enumerate(_softmax(scores)))
    return _linear(attention.out, joined)


def _external_loop(attention, tokens):
    """One image (T, C), head by head."""
    query = _linear(attention.query, tokens)
    width = query.shape[-1] // attention.heads
    joined = np.zeros_like(query)
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        scores = _linear(attention.memory_key, query[:, part])
        weights = np.stack([_softmax(list(column)) for column in scores.T], axis=1)
        joined[:, part] = _linear(attention.memory_value, weights / weights.sum(axis=1, keepdims=True))
    return _linear(attention.out, joined)


def test_axial_golden(golden):
    names = ("value", "score_row", "score_col", "shift", "bias")
    found = gaussian_axial_attention(*(golden[f"axial/{name}"] for name in names))
    torch.testing.assert_close(found, golden["axial/output"], **CLOSE)


def test_window_golden(golden):
    attention = LocalWindowAttention(16, heads=8)
    source = "window/attention."
    layers = ("query_layer", "key_layer", "value_layer")
    attention.load_state_dict(
        {
            f"qkv.{kind}": torch.cat([golden[f"{source}{layer}.{kind}"] for layer in layers])
            for kind in ("weight", "bias")
        }
        | {f"out.{kind}": golden[f"{source}out.{kind}"] for kind in ("weight", "bias")}
    )
    windows = partition_windows(golden["window/input"].unflatten(1, (8, 8)), 4)
    torch.testing.assert_close(attention(windows), golden["window/output"], **CLOSE)


def test_external_golden(golden):
    attention = ExternalAttention(16, heads=int(golden["external/heads"]), memories=64)
    names = {"query": "query_liner", "memory_key": "linear_0", "memory_value": "linear_1", "out": "proj"}
    attention.load_state_dict(
        {
            f"{ours}.{kind}": golden[f"external/{theirs}.{kind}"]
            for ours, theirs in names.items()
            for kind in ("weight", "bias")
        }
    )
    torch.testing.assert_close(attention(golden["external/input"]), golden["external/output"], **CLOSE)


@pytest.mark.parametrize("size", [(5, 5), (3, 6), (4, 1), (1, 1)])
def test_axial_against_loop(size):
    torch.manual_seed(0)
    height, width = size
    value, rows = torch.randn(2, height, width, 4), torch.randn(2, height, width, width)
    columns = torch.randn(2, width, height, height)
    found = gaussian_axial_attention(value, rows, columns, torch.tensor([0.3]), torch.tensor([-0.7]))
    torch.testing.assert_close(found, _axial_loop(value, rows, columns, 0.3, -0.7), **CLOSE)


def test_axial_module_against_loop():
    torch.manual_seed(1)
    attention = GaussianAxialAttention(8)
    grid = torch.randn(2, 3, 5, 8)
    query, key, value = (torch.from_numpy(part) for part in _qkv(attention.qkv, grid.double().numpy()))
    rows = torch.stack(
        [torch.stack([q @ k.T for q, k in zip(*pair, strict=True)]) for pair in zip(query, key, strict=True)]
    )
    columns = torch.stack(
        [torch.stack([query[b, :, c] @ key[b, :, c].T for c in range(grid.shape[2])]) for b in range(len(grid))]
    )
    expected = _axial_loop(value, rows, columns, attention.shift.item(), attention.bias.item())
    torch.testing.assert_close(attention(grid), attention.out(expected), **CLOSE)


def test_axial_narrow_and_wide_gaussians():
    value, rows, columns = torch.randn(1, 4, 6, 3), torch.zeros(1, 4, 6, 6), torch.zeros(1, 6, 4, 4)
    narrow = gaussian_axial_attention(value, rows, columns, torch.tensor([1e3]), torch.zeros(1))
    torch.testing.assert_close(narrow, 2 * value)
    wide = gaussian_axial_attention(value, rows, columns, torch.zeros(1), torch.zeros(1))
    torch.testing.assert_close(wide, value.mean(2, keepdim=True) + value.mean(1, keepdim=True))


def test_axial_bias_cancels():
    score = torch.randn(1, 4, 4, 4)
    arguments = (torch.randn(1, 4, 4, 3), score, score, torch.tensor([0.5]))
    torch.testing.assert_close(*(gaussian_axial_attention(*arguments, torch.tensor([bias])) for bias in (-3.0, 2.0)))


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_windows_against_loop(heads):
    torch.manual_seed(2)
    attention, windows = LocalWindowAttention(8, heads), torch.randn(2, 1, 3, 9, 8)
    found = attention(windows)
    for index in np.ndindex(2, 1, 3):
        expected = _window_loop(attention, windows[index].double().numpy())
        torch.testing.assert_close(found[index], torch.from_numpy(expected).float(), **CLOSE)


def test_windows_leave_out_what_fills_them_up():
    torch.manual_seed(3)
    attention, windows = LocalWindowAttention(8, 2), torch.randn(2, 1, 2, 4, 8)
    real = torch.ones(1, 1, 2, 4, 1, dtype=torch.bool)
    real[0, 0, 1, 2:] = False
    found = attention(windows, real)
    for b in range(2):
        whole, part = (_window_loop(attention, windows[b, 0, i, :n].double().numpy()) for i, n in ((0, 4), (1, 2)))
        torch.testing.assert_close(found[b, 0, 0], torch.from_numpy(whole).float(), **CLOSE)
        torch.testing.assert_close(found[b, 0, 1, :2], torch.from_numpy(part).float(), **CLOSE)


@pytest.mark.parametrize(("heads", "memories"), [(1, 3), (4, 64)])
def test_external_against_loop(heads, memories):
    torch.manual_seed(4)
    attention, tokens = ExternalAttention(8, heads, memories), torch.randn(2, 7, 8)
    found = attention(tokens)
    for image, result in zip(tokens, found, strict=True):
        expected = _external_loop(attention, image.double().numpy())
        torch.testing.assert_close(result, torch.from_numpy(expected).float(), **CLOSE)


def test_external_does_not_depend_on_the_order_of_tokens():
    attention, tokens = ExternalAttention(16), torch.randn(1, 9, 16)
    order = torch.randperm(9)
    torch.testing.assert_close(attention(tokens[:, order]), attention(tokens)[:, order])


@pytest.mark.parametrize(
    ("attention", "shape"),
    [
        (GaussianAxialAttention(16), (2, 7, 4, 16)),
        (LocalWindowAttention(16), (2, 2, 1, 16, 16)),
        (ExternalAttention(16), (2, 30, 16)),
    ],
)
def test_mixed_precision(attention, shape):
    torch.manual_seed(5)
    x = torch.randn(shape)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), attention(x), rtol=0.05, atol=0.05)
    found.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in attention.parameters())


@pytest.mark.parametrize("attention", [LocalWindowAttention, ExternalAttention])
def test_heads_that_do_not_divide_named(attention):
    with pytest.raises(ValueError, match="12 channels do not divide among 8 heads; give a multiple of heads"):
        attention(12)
