# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from monai_fewshot.apps.phantom import volume
from monai_fewshot.inferers import SegmentationProtocol, get_protocol
from monai_fewshot.inferers.support_choice import (
    ScanPairing,
    align_slices,
    choose_chunks,
    expected_slices,
    slice_similarity,
)
from monai_fewshot.utils import pixels_per_slice


def body(depth, begin=0.0, end=1.0, size=40):
    """A volume from relative height ``begin`` to ``end`` in which a disk wanders from corner to corner."""
    height = begin + (end - begin) * (torch.arange(depth) + 0.5) / depth
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    center = 0.2 + 0.6 * height
    return torch.exp(-((x[..., None] - center) ** 2 + (y[..., None] - center) ** 2) / 0.005)[None]


def spaced(mm):
    return np.diag([1.0, 1.0, mm, 1.0])


def pairing(query, supports, pixels, query_affine=None, support_affine=None):
    def align():
        affine = spaced(1.0) if query_affine is None else query_affine
        return [align_slices(slice_similarity(query, support), affine, support_affine) for support in supports]

    return ScanPairing(np.zeros((pixels[0].shape[0], query.shape[-1]), dtype=int), pixels, align)


def held(depth, first, last):
    pixels = np.zeros((1, depth), dtype=int)
    pixels[0, first : last + 1] = 9
    return pixels


def expected(span, query, supports, pixels, *affines):
    protocol = SegmentationProtocol("test", 3, "volume", "chunk", expected_span=span)
    found = expected_slices(protocol, pairing(query, supports, pixels, *affines))
    return [np.flatnonzero(row).tolist() for row in found]


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


@pytest.mark.parametrize(("begin", "end"), [(0.0, 1.0), (0.2, 0.8), (-0.5, 1.5), (0.2, 1.2)])
@pytest.mark.parametrize("depths", [(30, 24), (17, 40)])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_volume_of_another_field_of_view_spacing_and_order_is_found(begin, end, depths, reverse):
    query, support = body(depths[0], begin, end), body(depths[1])
    affine = np.eye(4)
    affine[:3, 2] = np.array([0.6, 0, 0.8]) * 300 * (end - begin) / depths[0]
    support_affine = np.eye(4)
    support_affine[:3, 2] = np.array([0.6, 0, 0.8]) * 300 / depths[1]
    if reverse:
        query, affine[:3, 2] = query.flip(3), -affine[:3, 2]
        begin, end = end, begin
    found = align_slices(slice_similarity(query, support), affine, support_affine)
    assert found[:2] == pytest.approx((begin * depths[1], end * depths[1]), abs=0.06 * depths[1])
    assert not found.doubt


def patient(index, height, slices, modality, monkeypatch):
    """A phantom of a field of view of so many mm; image, label, affine."""
    monkeypatch.setattr(volume, "FIELD_OF_VIEW", (320.0, 320.0, height))
    image, label, affine = volume.make_phantom_volume(index, 0, (48, 48, slices), modality)
    return torch.from_numpy(image[None]).float(), torch.from_numpy(label.astype(int)), affine


@pytest.mark.parametrize(
    ("modality", "reverse", "query_view", "support_view"),
    [
        ("mr", False, (192, 32), (192, 32)),
        ("ct", True, (192, 32), (192, 32)),
        ("ct", False, (384, 64), (192, 32)),
        ("mr", True, (192, 80), (384, 50)),
        pytest.param("mr", False, (600, 800), (225, 150), marks=pytest.mark.slow),
    ],
)
def test_organs_of_another_patient_are_expected_in_millimeters(
    query_view, support_view, reverse, modality, monkeypatch
):
    """Organs begin and end where they are expected, but for what they differ between patients: 5 mm on average."""
    query, label, affine = patient(0, *query_view, modality, monkeypatch)
    support, support_label, support_affine = patient(1, *support_view, modality, monkeypatch)
    if reverse:
        support, support_label = support.flip(3), support_label.flip(2)
        support_affine[:3, 2] *= -1
    pixels = pixels_per_slice(support_label, 4)
    found = expected("aligned", query, [support], [pixels], affine, support_affine)
    true = [np.flatnonzero(row) for row in pixels_per_slice(label, 4) > 0]
    errors = [abs(f[k] - t[k]) * affine[2, 2] for f, t in zip(found, true, strict=True) for k in (0, -1)]
    assert max(errors) < 25
    assert np.mean(errors) < 10


@pytest.mark.parametrize(
    ("query", "support_affine", "reason"),
    [
        (torch.rand(1, 40, 40, 30, generator=torch.Generator().manual_seed(0)), None, "too little alike"),
        (torch.zeros(1, 40, 40, 30), None, "too little alike"),
        (body(30), spaced(1)[:, [2, 1, 0, 3]], "at 90 degrees"),
    ],
)
def test_all_slices_are_looked_at_where_the_alignment_is_in_doubt(query, support_affine, reason, caplog):
    pixels = [held(30, 10, 12)]
    assert expected("aligned", query, [body(30)], pixels, None, support_affine) == [list(range(30))]
    assert "support scan 0 cannot be aligned with those of the query: " in caplog.text
    assert reason in caplog.text


def test_an_alignment_on_the_edge_of_the_search_is_in_doubt():
    later = np.subtract.outer(-np.arange(30), -np.arange(30)) / 10
    assert align_slices(later**3, np.eye(4)) == (15, 45, "half of the lower one would lie beyond the other")
    assert not align_slices(4 * np.eye(30, k=12), np.eye(4)).doubt


def test_support_scans_in_doubt_are_left_out():
    noise = torch.rand(1, 40, 40, 30, generator=torch.Generator().manual_seed(0))
    pixels = [held(30, 0, 3), held(30, 10, 12)]
    assert expected("aligned", body(30), [noise, body(30)], pixels) == [[10, 11, 12]]


@pytest.mark.parametrize("shape", [(1, 9), (9, 1)])
def test_single_slices_align(shape):
    begin, end, _ = align_slices(np.random.default_rng(0).random(shape), np.eye(4))
    assert end - begin == pytest.approx(shape[0])


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
    assert expected("aligned", body(24, 0.4, 1.2), [body(30)], [held(30, 0, 3)]) == [[]]


def test_chunks_of_an_expected_span():
    protocol = SegmentationProtocol("test", 3, "volume", "chunk", expected_span="height")
    segmented, chunks = choose_chunks(protocol, pairing(body(12), [body(12)], [held(12, 2, 8)]))
    assert np.flatnonzero(segmented[0]).tolist() == list(range(2, 9))
    assert chunks[0, :, 0].tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2]


def test_shares_reach_beyond_the_segmented_slices():
    protocol = dataclasses.replace(get_protocol("adnet_ep1"), num_chunks=2)
    segmented, chunks = choose_chunks(protocol, ScanPairing(np.array([[0, 5, 0, 5, 5, 5, 0]]), [], list))
    assert segmented[0].tolist() == [False, True, False, True, True, True, False]
    assert chunks[0, segmented[0], 0].tolist() == [0, 0, 1, 1]
    assert (chunks[0, 0, 0], chunks[0, -1, 0]) == (0, 1)


def test_without_an_expected_span_the_volume_is_cut_into_chunks():
    protocol = SegmentationProtocol("test", 3, "volume", "chunk")
    segmented, chunks = choose_chunks(protocol, pairing(body(7), [body(7)], [held(7, 2, 3)]))
    assert segmented.all()
    assert chunks[0, :, 0].tolist() == [0, 0, 1, 1, 2, 2, 2]


def test_every_chunk_serves_an_average():
    protocol = SegmentationProtocol("test", 3, "volume", "average")
    _, chunks = choose_chunks(protocol, pairing(body(4), [body(4)], [held(4, 0, 3)]))
    assert chunks.tolist() == [[[0, 1, 2]] * 4]
