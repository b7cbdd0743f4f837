# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_fewshot.inferers import Protocol
from monai_fewshot.inferers.support_choice import (
    ScanPairing,
    align_slices,
    choose_chunks,
    expected_slices,
    slice_similarity,
)


def body(depth, begin=0.0, end=1.0, size=40):
    """A volume from relative height ``begin`` to ``end`` in which a disk wanders from corner to corner."""
    height = begin + (end - begin) * (torch.arange(depth) + 0.5) / depth
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    center = 0.2 + 0.6 * height
    return torch.exp(-((x[..., None] - center) ** 2 + (y[..., None] - center) ** 2) / 0.005)[None]


def pairing(query, supports, pixels):
    return ScanPairing(
        np.zeros((pixels[0].shape[0], query.shape[-1]), dtype=int),
        pixels,
        lambda: [slice_similarity(query, support) for support in supports],
    )


def held(depth, first, last):
    pixels = np.zeros((1, depth), dtype=int)
    pixels[0, first : last + 1] = 9
    return pixels


def expected(span, query, supports, pixels):
    protocol = Protocol("test", 3, "volume", "chunk", expected_span=span)
    return [np.flatnonzero(row).tolist() for row in expected_slices(protocol, pairing(query, supports, pixels))]


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


def test_a_class_is_expected_at_the_relative_height_of_the_support():
    assert expected("height", body(20), [body(40)], [held(40, 10, 33)]) == [list(range(5, 17))]
    assert expected("height", body(40), [body(20)], [held(20, 5, 16)]) == [list(range(10, 34))]


def test_expected_spans_average_the_support_scans_that_hold_the_class():
    scans = [held(10, 2, 3), held(10, 4, 7), np.zeros((1, 10), dtype=int)]
    assert expected("height", body(10), [body(10)] * 3, scans) == [[3, 4, 5]]


def test_each_class_has_its_own_expected_span():
    pixels = np.concatenate([held(30, 0, 9), held(30, 20, 29)])
    assert expected("height", body(15), [body(30)], [pixels]) == [list(range(5)), list(range(10, 15))]


def test_a_class_thinner_than_a_slice_is_expected_in_one():
    assert expected("height", body(5), [body(50)], [held(50, 12, 13)]) == [[1]]


@pytest.mark.parametrize("span", ["height", "aligned"])
def test_single_slices_hold_what_the_support_holds(span):
    assert expected(span, body(1), [body(1)], [held(1, 0, 0)]) == [[0]]


def test_alignment_finds_the_class_in_a_volume_that_begins_elsewhere():
    query, support = body(30, 0.2, 1.2), body(30)
    (found,) = expected("aligned", query, [support], [held(30, 15, 23)])
    assert abs(found[0] - 9) <= 1
    assert abs(found[-1] - 17) <= 1
    (unmoved,) = expected("height", query, [support], [held(30, 15, 23)])
    assert unmoved == list(range(15, 24))


def test_a_class_outside_the_query_volume_is_not_expected():
    assert expected("aligned", body(30, 0.4, 1.2), [body(30)], [held(30, 0, 3)]) == [[]]


def test_chunks_of_an_expected_span():
    protocol = Protocol("test", 3, "volume", "chunk", expected_span="height")
    chunks = choose_chunks(protocol, pairing(body(12), [body(12)], [held(12, 2, 8)]))
    assert chunks[0, :, 0].tolist() == [-1, -1, 0, 0, 1, 1, 2, 2, 2, -1, -1, -1]


def test_without_an_expected_span_the_volume_is_cut_into_chunks():
    chunks = choose_chunks(Protocol("test", 3, "volume", "chunk"), pairing(body(7), [body(7)], [held(7, 2, 3)]))
    assert chunks[0, :, 0].tolist() == [0, 0, 1, 1, 2, 2, 2]


def test_every_chunk_serves_an_average():
    chunks = choose_chunks(Protocol("test", 3, "volume", "average"), pairing(body(4), [body(4)], [held(4, 0, 3)]))
    assert chunks.tolist() == [[[0, 1, 2]] * 4]
