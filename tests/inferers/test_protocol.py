# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from monai_fewshot.handlers import VolumeScores
from monai_fewshot.inferers import (
    PROTOCOLS,
    ClassVolumeInferer,
    FewShotVolumeInferer,
    RegistrationInferer,
    SegmentationProtocol,
    get_protocol,
)
from monai_fewshot.inferers.support_choice import ScanPairing, choose_chunks


def chunks_of(protocol, pixels):
    pairing = ScanPairing(np.asarray(pixels), [], list)
    segmented, chunks = choose_chunks(protocol, pairing)
    return np.where(segmented, chunks[..., 0], -1)


def published_positions(parts, length):
    """The middle of each part, in floating point as the published code has it."""
    half, interval = 1 / (2 * parts), (1 - 1 / parts) / max(parts - 1, 1)
    return [int((half + interval * part) * length) for part in range(parts)]


def published_chunk(z, z_min, z_max, parts):
    if z_min == z_max:
        return 0
    return min(max(int((z - z_min) // ((z_max - z_min) / parts)), 0), parts - 1)


def test_every_entry_of_the_published_reference(golden_dir):
    entries = json.loads((golden_dir / "middle_slice_protocol.json").read_text())
    assert len(entries) == 12
    for entry in entries:
        protocol = dataclasses.replace(PROTOCOLS["alpnet"], name="golden", num_chunks=entry["num_chunks"])
        support = protocol.support_slices(entry["support_slices_with_class"])
        assert support[:, 0].tolist() == entry["support_slice_per_chunk"]
        query = entry["query_slices_with_class"]
        pixels = np.zeros((1, max(query) + 3), dtype=int)
        pixels[0, query] = 7
        assert chunks_of(protocol, pixels)[0, query].tolist() == entry["query_chunk_per_slice"]


@pytest.mark.parametrize("parts", [1, 3, 5, 7])
def test_positions_and_chunks_are_those_of_the_published_formulas(parts):
    protocol = dataclasses.replace(PROTOCOLS["alpnet"], name="test", num_chunks=parts)
    for length in range(1, 200):
        slices = np.arange(length) * 2
        expected = slices[published_positions(parts, length)].tolist()
        assert protocol.support_slices(slices)[:, 0].tolist() == expected
        pixels = np.pad(np.ones((1, length), dtype=int), ((0, 0), (3, 1)))
        expected = [published_chunk(z, 3, length + 2, parts) for z in range(3, length + 3)]
        assert chunks_of(protocol, pixels)[0].tolist() == [-1] * 3 + expected + [-1]


def test_shots_are_the_middles_of_a_chunks_parts():
    protocol = dataclasses.replace(PROTOCOLS["alpnet"], name="test", num_chunks=2, shots_per_chunk=3)
    assert protocol.support_slices(range(100, 160)).tolist() == [[105, 115, 125], [135, 145, 155]]


def test_chunks_hold_their_support_slices():
    rng = np.random.default_rng(1)
    for _ in range(300):
        n, s, length = rng.integers(1, 6), rng.integers(1, 4), rng.integers(1, 50)
        protocol = SegmentationProtocol("random", int(n), "span", "chunk", shots_per_chunk=int(s))
        slices = np.sort(rng.choice(100, length, replace=False))
        chosen = protocol.support_slices(slices)
        assert chosen.shape == (n, s)
        assert np.isin(chosen, slices).all()
        assert (np.diff(chosen.ravel()) >= 0).all()
        if length >= n * s:
            assert len(np.unique(chosen)) == n * s


def test_segmented_slices_against_plain_definitions():
    rng = np.random.default_rng(2)
    for _ in range(300):
        pixels = rng.integers(0, 30, (3, rng.integers(1, 20))) * (rng.random((3, 1)) < 0.8) * (rng.random() < 0.9)
        for row, counts in enumerate(pixels.tolist()):
            for least in (1, 11):
                held = [z for z, count in enumerate(counts) if count >= least]
                span = list(range(held[0], held[-1] + 1)) if held else []
                for kind, expected in (("span", span), ("present", held), ("volume", list(range(len(counts))))):
                    protocol = SegmentationProtocol("p", 3, kind, "all", min_pixels=least)
                    assert np.flatnonzero(protocol.segmented_slices(pixels)[row]).tolist() == expected
                    assert np.flatnonzero(protocol.segmented_slices(pixels[row])).tolist() == expected


def test_adnet_ep1_shares_out_the_slices_that_hold_the_class():
    rng = np.random.default_rng(3)
    for _ in range(300):
        pixels = rng.integers(0, 2, (1, rng.integers(1, 40)))
        chunks = chunks_of(PROTOCOLS["adnet_ep1"], pixels)[0]
        held = np.flatnonzero(pixels[0])
        borders = np.linspace(0, len(held), 4).astype(int)
        expected = np.full(pixels.shape[1], -1)
        for chunk in range(3):
            expected[held[borders[chunk] : borders[chunk + 1]]] = chunk
        assert chunks.tolist() == expected.tolist()


def test_presets_say_what_the_papers_say():
    assert list(PROTOCOLS) == ["alpnet", "adnet_ep1", "adnet_ep2", "senet", "whole_volume"]
    assert [p.needs_query_label for p in PROTOCOLS.values()] == [True, True, False, True, False]
    assert [p.num_chunks for p in PROTOCOLS.values()][:4] == [3, 3, 1, 10]
    assert [str(p.scan_reduction) for p in PROTOCOLS.values()] == ["mean", "mean", "mean", "median", "mean"]
    assert PROTOCOLS["adnet_ep2"].support_slices(range(20, 31)).tolist() == [[25]]
    ten, eleven = (np.array([0, pixels, 0]) for pixels in (10, 11))
    assert not PROTOCOLS["senet"].segmented_slices(ten).any()
    assert PROTOCOLS["senet"].segmented_slices(eleven).tolist() == [False, True, False]


def test_a_protocol_is_data():
    protocol = get_protocol("alpnet")
    assert get_protocol(protocol) is protocol
    assert len({protocol, PROTOCOLS["alpnet"], dataclasses.replace(protocol)}) == 1
    assert "alpnet" in repr(protocol)
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol.num_chunks = 5
    again = SegmentationProtocol(**json.loads(json.dumps(dataclasses.asdict(protocol))))
    assert again == protocol


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'alpnett'.*adnet_ep1.*alpnet.*whole_volume"):
        get_protocol("alpnett")


@pytest.mark.parametrize(
    ("protocols", "message"),
    [
        ("alp", "no protocol 'alp'"),
        ([], r"protocols of different names are needed, got \[\]"),
        (["alpnet", PROTOCOLS["alpnet"]], r"different names are needed, got \['alpnet', 'alpnet'\]"),
    ],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda protocols: FewShotVolumeInferer(protocols, 2),
        lambda protocols: ClassVolumeInferer(protocols, 2),
        lambda protocols: RegistrationInferer(protocols, 2),
        lambda protocols: VolumeScores(protocols, ["liver", "spleen"]),
    ],
)
def test_protocols_that_cannot_be_told_apart_are_refused(use, protocols, message):
    with pytest.raises(ValueError, match=message):
        use(protocols)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_chunks": 0}, "num_chunks must be an integer of 1 or more, got 0"),
        ({"num_chunks": 2.5}, "num_chunks must be an integer of 1 or more, got 2.5"),
        ({"shots_per_chunk": 0}, "shots_per_chunk"),
        ({"min_pixels": -1}, "min_pixels"),
        ({"query_slices": "some"}, r"query_slices must be one of \['span', 'present', 'volume'\], got 'some'"),
        ({"support_choice": "best"}, r"support_choice must be one of .*'chunk'.*, got 'best'"),
        ({"scan_reduction": "sum"}, r"scan_reduction must be one of \['mean', 'median', 'runs'\], got 'sum'"),
        ({"query_slices": "volume", "expected_span": "middle"}, r"expected_span must be one of .*, got 'middle'"),
        ({"expected_span": "height"}, "expected_span is for query_slices 'volume'; under 'span'"),
    ],
)
def test_values_out_of_range_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PROTOCOLS["alpnet"], **change)


def test_no_support_slice():
    with pytest.raises(ValueError, match="slices_with_class is empty"):
        PROTOCOLS["alpnet"].support_slices([])
