# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from monai_fewshot.networks.blocks import (
    PrototypeSet,
    class_similarity,
    local_average,
    masked_average,
    prototype_similarity,
    prototypes,
    shot_averages,
)


def _random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _prototype_set(batch=2, classes=3, local=5, pooled=2, channels=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    owned = (torch.rand(batch, classes, local, generator=generator) > 0.5).float()
    used = (torch.rand(batch, classes, pooled, generator=generator) > 0.3).float()
    used[..., 0] = 1
    return PrototypeSet(
        torch.randn(batch, local, channels, generator=generator),
        owned,
        torch.randn(batch, classes, pooled, channels, generator=generator),
        used,
    )


def _score(f, own, scale=20.0):
    """Fused similarity of one feature to a list of prototypes."""
    s = np.array([scale * f @ p / max(np.linalg.norm(f), 1e-4) / max(np.linalg.norm(p), 1e-4) for p in own])
    weight = np.exp(s - s.max())
    return (s * weight).sum() / weight.sum()


def _scores(features, sets, scale=20.0):
    """Scores (B, N, *S) by loops over episodes, classes and pixels."""
    features, sets = features.double().numpy(), PrototypeSet(*(x.double().numpy() for x in sets))
    out = np.zeros((len(features), sets.owned.shape[1], *features.shape[2:]))
    for b, c in np.ndindex(*out.shape[:2]):
        e = b if len(sets.local) > 1 else 0
        own = [p for p, used in zip(sets.local[e], sets.owned[e, c], strict=True) if used]
        own += [p for p, used in zip(sets.pooled[e, c], sets.used[e, c], strict=True) if used]
        for place in np.ndindex(*features.shape[2:]):
            out[(b, c, *place)] = _score(features[(b, slice(None), *place)], own, scale)
    return out


@pytest.mark.parametrize("size", [(6, 5), (4, 5, 3)])
def test_masked_average_by_loops(size):
    features, masks = _random(2, 3, *size), torch.rand(2, 4, *size)
    masks[1, 2] = 0
    out = masked_average(features, masks)
    for b, n, c in np.ndindex(2, 4, 3):
        total = sum(float(features[(b, c, *p)] * masks[(b, n, *p)]) for p in np.ndindex(*size))
        weight = sum(float(masks[(b, n, *p)]) for p in np.ndindex(*size))
        assert out[b, n, c].item() == pytest.approx(total / (weight + 1e-5), abs=1e-5)
    assert not out[1, 2].any()


@pytest.mark.parametrize(
    ("size", "window"), [((8, 8), 4), ((9, 7), 2), ((3, 9), 4), ((5, 5), 1), ((6, 5, 4), 2), ((2, 6, 7), 4)]
)
def test_local_average_by_loops(size, window):
    x = _random(2, 3, *size)
    out = local_average(x, window)
    edges = [min(window, n) for n in size]
    cells = [range(n // edge) for n, edge in zip(size, edges, strict=True)]
    expected = []
    for cell in itertools.product(*cells):
        inside = tuple(slice(i * edge, (i + 1) * edge) for i, edge in zip(cell, edges, strict=True))
        expected.append(x[(slice(None), slice(None), *inside)].double().numpy().mean(tuple(range(2, x.ndim))))
    np.testing.assert_allclose(out, np.stack(expected, axis=2), atol=1e-6)


@pytest.mark.parametrize("size", [(4, 3), (3, 2, 4)])
@pytest.mark.parametrize("scale", [20.0, 5.0])
@pytest.mark.parametrize("episodes", [1, 2])
def test_similarity_by_loops(size, scale, episodes):
    features, sets = 3 * _random(2, 4, *size, seed=1), _prototype_set(batch=episodes)
    out = prototype_similarity(features, sets, scale)
    assert out.shape == (2, 3, *size)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out, _scores(features, sets, scale), rtol=1e-5, atol=1e-5 * scale)
    assert out.abs().max() <= scale + 1e-4


def test_local_prototypes_alone_and_class_prototypes_alone():
    features, sets = _random(2, 4, 3, 3, seed=2), _prototype_set()
    sets.owned[:, :, 0] = 1
    only_local = sets._replace(used=torch.zeros_like(sets.used))
    only_pooled = sets._replace(owned=torch.zeros_like(sets.owned))
    for some in (only_local, only_pooled):
        np.testing.assert_allclose(prototype_similarity(features, some), _scores(features, some), atol=2e-4)


def test_agrees_with_the_original_module(golden_dir):
    data = np.load(golden_dir / "alp_module.npz")
    cases = sorted({key.split("/")[0] for key in data.files})
    assert {str(data[f"{n}/mode"]) for n in cases} == {"class", "local", "local+class"}
    for n in cases:
        query, support, mask = (torch.from_numpy(data[f"{n}/{key}"]) for key in ("query", "support", "mask"))
        mode, window, shots = str(data[f"{n}/mode"]), int(data[f"{n}/window"]), len(support)
        by_shot = masked_average(support, mask).view(1, 1, shots, -1)
        pooled = by_shot.mean(2, keepdim=True) if mode == "class" else by_shot
        local = local_average(support, window).transpose(1, 2).flatten(0, 1)[None]
        owned = (local_average(mask, window).flatten()[None, None] > 0.95).float()
        sets = PrototypeSet(
            local,
            torch.zeros_like(owned) if mode == "class" else owned,
            pooled,
            torch.full(pooled.shape[:3], float(mode != "local")),
        )
        np.testing.assert_allclose(prototype_similarity(query, sets), data[f"{n}/score"], rtol=1e-5, atol=20 * 1e-5)


@pytest.mark.parametrize("episodes", [1, 7])
@pytest.mark.parametrize("at_once", [1, 3])
def test_blocks_on_the_cpu_change_nothing(monkeypatch, episodes, at_once):
    features, sets = _random(7, 4, 5, 6), _prototype_set(batch=episodes)
    with torch.enable_grad():
        direct = prototype_similarity(features, sets)
    calls = []
    whole = prototypes._similarity
    monkeypatch.setattr(prototypes, "_similarity", lambda f, *rest: calls.append(len(f)) or whole(f, *rest))
    monkeypatch.setattr(prototypes, "CPU_SIMILARITIES", at_once * 5 * 30 + 1)
    with torch.no_grad():
        torch.testing.assert_close(prototype_similarity(features, sets), direct, rtol=1e-6, atol=1e-5)
    assert calls == [at_once] * (7 // at_once) + [1] * (7 % at_once)


def test_gradients_are_finite_where_features_are_zero():
    features, sets = torch.zeros(1, 4, 3, 3, requires_grad=True), _prototype_set(batch=1)
    support = torch.zeros_like(sets.local).requires_grad_()
    out = prototype_similarity(features, sets._replace(local=support, pooled=torch.zeros_like(sets.pooled)))
    assert not out.any()
    out.sum().backward()
    assert features.grad.isfinite().all()
    assert support.grad.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks(value):
    features, masks = _random(2, 3, 8, 8).requires_grad_(), torch.full((2, 1, 8, 8), value)
    pooled = masked_average(features, masks)
    cells = local_average(masks, 4)
    assert (cells == value).all()
    sets = PrototypeSet(local_average(features, 4).mT, cells, pooled.unsqueeze(2), torch.ones(2, 1, 1))
    out = prototype_similarity(features, sets)
    assert out.isfinite().all()
    out.sum().backward()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_are_compared_in_full_precision(dtype):
    features, sets = _random(2, 4, 3, 3), _prototype_set()
    rounded = PrototypeSet(*(x.to(dtype).float() for x in sets))
    expected = prototype_similarity(features.to(dtype).float(), rounded)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = prototype_similarity(features.to(dtype), PrototypeSet(*(x.to(dtype) for x in sets[:1]), *rounded[1:]))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected)


def test_closest_prototype_decides():
    directions = F.one_hot(torch.arange(4)).float()
    sets = PrototypeSet(
        directions[None, :3],
        torch.tensor([[[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]]),
        torch.zeros(1, 2, 1, 4),
        torch.zeros(1, 2, 1),
    )
    out = prototype_similarity(5 * directions[:3].T.view(1, 4, 1, 3), sets)
    assert out.argmax(1).flatten().tolist() == [0, 0, 1]
    torch.testing.assert_close(out[0, 1, 0], torch.tensor([0.0, 0.0, 20.0]))
    assert (out[0, 0, 0, :2] > 19.9).all()


def test_shot_averages_are_those_of_each_mask_alone():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 5, 4, 6, generator=generator)
    label = torch.randint(0, 3, (2, 3, 1, 4, 6), generator=generator).float()
    label[1, 2] = 0
    masks = torch.cat([label == 1, label == 2], dim=2).float()
    pooled, shown = shot_averages(features, masks)
    assert pooled.shape == (2, 3, 2, 5)
    for episode in range(2):
        for shot in range(3):
            for number in (1, 2):
                inside = label[episode, shot, 0] == number
                expected = features[episode, shot][:, inside].mean(1) if inside.any() else torch.zeros(5)
                torch.testing.assert_close(pooled[episode, shot, number - 1], expected, atol=1e-5, rtol=1e-4)
                assert shown[episode, shot, number - 1] == inside.any()


@pytest.mark.parametrize("size", [(4, 5), (2, 3, 4)])
@pytest.mark.parametrize("batch", [1, 2])
def test_similarity_to_one_prototype_a_class_by_loops(size, batch):
    features, own = _random(2, 4, *size), _random(batch, 3, 4, seed=1)
    own[0, 2] = 0
    out = class_similarity(features, own)
    assert out.shape == (2, 3, *size)
    for b, c in np.ndindex(2, 3):
        for place in np.ndindex(*size):
            f, p = features[(b, slice(None), *place)].double(), own[b if batch > 1 else 0, c].double()
            expected = 20 * (f @ p) / f.norm() / p.norm().clamp(min=1e-4)
            assert out[(b, c, *place)].item() == pytest.approx(expected.item(), abs=1e-4)
    assert not out[0, 2].any()
