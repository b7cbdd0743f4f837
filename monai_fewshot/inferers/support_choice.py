# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .protocol import Protocol, SupportChoice

__all__ = ["ScanPairing", "align_slices", "choose_chunks", "slice_similarity"]

THUMBNAIL = 16


@dataclass(frozen=True)
class ScanPairing:
    """What is known of a query volume and its support scans when chunks are chosen.

    Attributes:
        query_pixels: (N, D) pixels of each class in each query slice; for whole volumes only its shape matters.
        support_pixels: for each support scan (N, D of that scan).
        shots: for each class and chunk, the (scan, slice) pairs that support it.
        similarity: returns for each support scan how alike query and support slices look, (D, D of that scan);
            called only where a choice asks for it.
    """

    query_pixels: np.ndarray
    support_pixels: Sequence[np.ndarray]
    shots: Sequence[Sequence[Sequence[tuple[int, int]]]]
    similarity: Callable[[], Sequence[np.ndarray]]


def choose_chunks(protocol: Protocol, pairing: ScanPairing) -> np.ndarray:
    """Choose the chunks whose support slices serve each query slice.

    Args:
        protocol: the protocol.
        pairing: the query and its support scans.

    Returns:
        (N, D, R) chunk numbers, -1 where the class is not segmented in the slice. R is 1, or ``num_chunks`` for the
        choices that let every chunk segment a slice.

    Example:
        >>> pixels = np.array([[0, 5, 5, 0, 5, 5, 5]])
        >>> pairing = ScanPairing(pixels, [], [], list)
        >>> choose_chunks(Protocol("three", 3, "span", "chunk"), pairing)[0, :, 0]
        array([-1,  0,  0,  1,  1,  2,  2])
    """
    segmented = protocol.segmented_slices(pairing.query_pixels)[..., None]
    chunks = _CHOICES[protocol.support_choice](protocol, pairing, segmented[..., 0])
    return np.where(segmented, chunks, -1)


def slice_similarity(query: torch.Tensor, support: torch.Tensor) -> np.ndarray:
    """Compare the appearance of slices: the correlation of what sets their thumbnails apart from their volume's mean.

    Args:
        query: (C, H, W, D).
        support: (C, H', W', D').

    Returns:
        (D, D'), from -1 to 1; 0 where a slice does not differ from its volume's mean.
    """
    return (_thumbnails(query) @ _thumbnails(support).T).cpu().numpy()


def align_slices(similarity: np.ndarray) -> tuple[float, float]:
    """Find where the query volume begins and ends on the slice axis of the support volume.

    Slice z of D query slices lies at ``begin + (end - begin) (z + 1/2) / D`` in the support volume, whose slice s
    covers s to s + 1. With ``shift`` the distance of the volumes' middles in heights of the support volume (up to
    1/2) and ``scale`` the ratio of their heights (up to e^0.4), the greatest value of

    ``mean similarity - 2 (shift^2 + ln(scale)^2)``

    wins. A query slice beyond the support volume counts with the mean of all similarities. (The factor 2 predicts
    best from one scan where an organ begins and ends in another one, over abdominal and cardiac MR and abdominal CT.)

    Args:
        similarity: (D, D').

    Returns:
        Begin and end, 0 and D' where both volumes show the same.
    """
    depth, support_depth = similarity.shape
    shift, log_scale = np.meshgrid(np.linspace(-0.5, 0.5, 97), np.linspace(-0.4, 0.4, 17), indexing="ij")
    begin = (0.5 + shift - np.exp(log_scale) / 2) * support_depth
    length = np.exp(log_scale) * support_depth
    slices = np.floor(begin[..., None] + length[..., None] * ((np.arange(depth) + 0.5) / depth)).astype(int)
    inside = (slices >= 0) & (slices < support_depth)
    looked_up = similarity[np.arange(depth), slices.clip(0, support_depth - 1)]
    score = np.where(inside, looked_up, similarity.mean()).mean(-1) - 2 * (shift**2 + log_scale**2)
    best = np.unravel_index(score.argmax(), score.shape)
    return float(begin[best]), float(begin[best] + length[best])


def _thumbnails(image: torch.Tensor) -> torch.Tensor:
    """Return (D, pixels) of length 1. A volume of one slice has no mean to differ from and keeps what it is."""
    small = F.adaptive_avg_pool2d(image.permute(3, 0, 1, 2), THUMBNAIL).flatten(1)
    centered = F.normalize(small - small.mean(1, keepdim=True), eps=1e-6)
    return F.normalize(centered - centered.mean(0), eps=1e-6) if len(centered) > 1 else centered


def _by_chunk(protocol: Protocol, pairing: ScanPairing, segmented: np.ndarray) -> np.ndarray:
    depth = segmented.shape[1]
    first = segmented.argmax(1)[:, None]
    last = depth - 1 - segmented[:, ::-1].argmax(1)[:, None]
    chunk = (np.arange(depth) - first) * protocol.num_chunks // np.maximum(last - first, 1)
    return chunk.clip(0, protocol.num_chunks - 1)[..., None]


def _by_share(protocol: Protocol, pairing: ScanPairing, segmented: np.ndarray) -> np.ndarray:
    rank = segmented.cumsum(1) - 1
    borders = np.linspace(0, segmented.sum(1), protocol.num_chunks + 1, axis=1).astype(int)
    return (rank[..., None] >= borders[:, None, :-1]).sum(-1, keepdims=True) - 1


def _all_chunks_at_once(protocol: Protocol, pairing: ScanPairing, segmented: np.ndarray) -> np.ndarray:
    return np.zeros((*segmented.shape, 1), dtype=int)


def _every_chunk(protocol: Protocol, pairing: ScanPairing, segmented: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(protocol.num_chunks), (*segmented.shape, protocol.num_chunks))


def _by_height(protocol: Protocol, pairing: ScanPairing, segmented: np.ndarray) -> np.ndarray:
    return _by_expected_span(protocol, pairing, [(0, pixels.shape[1]) for pixels in pairing.support_pixels])


def _by_alignment(protocol: Protocol, pairing: ScanPairing, segmented: np.ndarray) -> np.ndarray:
    return _by_expected_span(protocol, pairing, [align_slices(matrix) for matrix in pairing.similarity()])


def _by_expected_span(protocol: Protocol, pairing: ScanPairing, lines: Sequence[tuple[float, float]]) -> np.ndarray:
    """Carry the class's first and last edge from the support scans to the query, averaged over the scans."""
    depth = pairing.query_pixels.shape[1]
    edges = []
    for pixels, (begin, end) in zip(pairing.support_pixels, lines, strict=True):
        held = pixels >= protocol.min_pixels
        first, last = held.argmax(1), held.shape[1] - held[:, ::-1].argmax(1)
        place = (np.stack([first, last]) - begin) / (end - begin) * depth
        edges.append(np.where(held.any(1), place, np.nan))
    low, high = np.nanmean(edges, axis=0)
    place = (np.arange(depth) + 0.5 - low[:, None]) / (high - low)[:, None]
    chunk = np.floor(place * protocol.num_chunks).astype(int).clip(0, protocol.num_chunks - 1)
    if protocol.reach is not None:
        chunk = np.where((place >= -protocol.reach) & (place <= 1 + protocol.reach), chunk, -1)
    return chunk[..., None]


def _by_similarity(protocol: Protocol, pairing: ScanPairing, segmented: np.ndarray) -> np.ndarray:
    similarity = pairing.similarity()
    scores = [
        [np.max([similarity[scan][:, place] for scan, place in shots], axis=0) for shots in chunks]
        for chunks in pairing.shots
    ]
    return np.argmax(scores, axis=1)[..., None]


_CHOICES: dict[str, Callable[[Protocol, ScanPairing, np.ndarray], np.ndarray]] = {
    SupportChoice.CHUNK: _by_chunk,
    SupportChoice.SHARE: _by_share,
    SupportChoice.ALL: _all_chunks_at_once,
    SupportChoice.HEIGHT: _by_height,
    SupportChoice.ALIGNED: _by_alignment,
    SupportChoice.SIMILAR: _by_similarity,
    SupportChoice.AVERAGE: _every_chunk,
    SupportChoice.CONFIDENT: _every_chunk,
}
