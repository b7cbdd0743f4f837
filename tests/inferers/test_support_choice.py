# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_fewshot.inferers import Protocol
from monai_fewshot.inferers.support_choice import ScanPairing, align_slices, choose_chunks, slice_similarity


def body(depth, begin=0.0, end=1.0, size=40):
    """A volume from relative height ``begin`` to ``end`` in which a disk wanders from corner to corner."""
    height = begin + (end - begin) * (torch.arange(depth) + 0.5) / depth
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    center = 0.2 + 0.6 * height
    return torch.exp(-((x[..., None] - center) ** 2 + (y[..., None] - center) ** 2) / 0.005)[None]


def pairing(query, supports, pixels, shots=None):
    return ScanPairing(
        np.zeros((pixels[0].shape[0], query.shape[-1]), dtype=int),
        pixels,
        shots,
        lambda: [slice_similarity(query, support) for support in supports],
    )


def held(depth, first, last):
    pixels = np.zeros((1, depth), dtype=int)
    pixels[0, first : last + 1] = 9
    return pixels


def whole(choice, **kwargs):
    return Protocol("test", 3, "volume", choice, **kwargs)


def test_similarity_is_the_correlation_of_what_differs_from_the_mean_slice():
    rng = torch.Generator().manual_seed(0)
    query, support = (torch.rand(2, 16, 16, depth, generator=rng) for depth in (5, 4))
    similarity = slice_similarity(query * 5 - 1, support)

    def residuals(volume):
        rows = [(v - v.mean()) / np.linalg.norm(v - v.mean()) for v in volume.flatten(0, 2).T.numpy()]
        return [row - np.mean(rows, axis=0) for row in rows]

    for q, query_row in enumerate(residuals(query)):
        for s, support_row in enumerate(residuals(support)):
            norms = np.linalg.norm(query_row) * np.linalg.norm(support_row)
            assert similarity[q, s] == pytest.approx(query_row @ support_row / norms, abs=1e-5)


def test_constant_volumes_are_similar_to_nothing():
    assert not slice_similarity(torch.full((1, 16, 16, 3), 7.0), torch.rand(1, 16, 16, 4)).any()


def test_a_single_slice_finds_its_like():
    support = body(9)
    assert slice_similarity(support[..., 6:7], support).argmax() == 6


def test_similarity_of_slices_of_different_sizes():
    similarity = slice_similarity(body(7, size=48), body(9, size=57))
    assert similarity.shape == (7, 9)
    nearest = similarity.argmax(1)
    assert nearest.tolist() == [int((z + 0.5) / 7 * 9) for z in range(7)]


@pytest.mark.parametrize(("begin", "end"), [(0.0, 1.0), (0.1, 0.9), (-0.1, 1.1), (0.2, 1.2)])
@pytest.mark.parametrize("depths", [(30, 24), (17, 40)])
def test_a_shifted_and_stretched_volume_is_found(begin, end, depths):
    query, support = body(depths[0], begin, end), body(depths[1])
    found = align_slices(slice_similarity(query, support))
    assert found == pytest.approx((begin * depths[1], end * depths[1]), abs=0.08 * depths[1])


def test_a_volume_without_features_stays_where_it_is():
    assert align_slices(np.zeros((12, 20))) == (0.0, 20.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_single_slices_align(shape):
    begin, end = align_slices(np.random.default_rng(0).random(shape))
    assert 0.6 < (end - begin) / shape[1] < 1.6


def test_height_follows_the_relative_place_in_the_volume():
    query, support = body(20), body(40)
    chunks = choose_chunks(whole("height"), pairing(query, [support], [held(40, 10, 33)]))
    expected = [min(max(int(((z + 0.5) / 20 * 40 - 10) / 24 * 3), 0), 2) if z >= 5 else 0 for z in range(20)]
    assert chunks[0, :, 0].tolist() == expected


def test_height_averages_the_support_scans_that_hold_the_class():
    scans = [held(10, 2, 3), held(10, 4, 7), np.zeros((1, 10), dtype=int)]
    chunks = choose_chunks(whole("height", reach=0.0), pairing(body(10), [body(10)] * 3, scans))
    assert np.flatnonzero(chunks[0, :, 0] >= 0).tolist() == [3, 4, 5]


def test_reach_leaves_out_slices_far_from_the_class():
    at_0, at_half = (
        choose_chunks(whole("height", reach=reach), pairing(body(30), [body(30)], [held(30, 10, 19)]))[0, :, 0]
        for reach in (0.0, 0.5)
    )
    assert np.flatnonzero(at_0 >= 0).tolist() == list(range(10, 20))
    assert np.flatnonzero(at_half >= 0).tolist() == list(range(5, 25))
    assert at_0[10:20].tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]


def test_alignment_finds_the_class_in_a_volume_that_begins_elsewhere():
    query, support = body(30, 0.2, 1.2), body(30)
    chunks = choose_chunks(whole("aligned", reach=0.0), pairing(query, [support], [held(30, 15, 23)]))[0, :, 0]
    found = np.flatnonzero(chunks >= 0)
    assert abs(found[0] - 9) <= 1
    assert abs(found[-1] - 17) <= 1


def test_similar_takes_the_chunk_that_looks_most_alike():
    query, support = body(12), body(24)
    shots = [[((0, 3),), ((0, 12), (0, 13)), ((0, 20),)]]
    chunks = choose_chunks(whole("similar"), pairing(query, [support], [held(24, 0, 23)], shots))[0, :, 0]
    similarity = slice_similarity(query, support)
    expected = [int(np.argmax([row[3], max(row[12], row[13]), row[20]])) for row in similarity]
    assert chunks.tolist() == expected
    assert chunks[0] == 0
    assert chunks[6] == 1
    assert chunks[11] == 2


@pytest.mark.parametrize("choice", ["average", "confident"])
def test_every_chunk_may_serve_a_slice(choice):
    chunks = choose_chunks(whole(choice), pairing(body(4), [body(4)], [held(4, 0, 3)]))
    assert chunks.tolist() == [[[0, 1, 2]] * 4]
