# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .protocol import ExpectedSpan, Protocol, SupportChoice

__all__ = ["ScanPairing", "align_slices", "choose_chunks", "expected_slices", "slice_similarity"]

THUMBNAIL = 16


@dataclass(frozen=True)
class ScanPairing:
    """What is known of a query volume and its support scans when support slices are chosen.

    Attributes:
        query_pixels: (N, D) pixels of each class in each query slice; for whole volumes only its shape matters.
        support_pixels: for each support scan (N, D of that scan).
        similarity: returns for each support scan how alike query and support slices look, (D, D of that scan);
            called only where a protocol asks for it.
    """

    query_pixels: np.ndarray
    support_pixels: Sequence[np.ndarray]
    similarity: Callable[[], Sequence[np.ndarray]]


def choose_chunks(protocol: Protocol, pairing: ScanPairing) -> np.ndarray:
    """Choose the chunks whose support slices serve each query slice.

    Args:
        protocol: the protocol.
        pairing: the query and its support scans.

    Returns:
        (N, D, R) chunk numbers, -1 where the class is not segmented in the slice. R is 1, or ``num_chunks`` where
        every chunk segments a slice.

    Example:
        >>> pixels = np.array([[0, 5, 5, 0, 5, 5, 5]])
        >>> choose_chunks(Protocol("three", 3, "span", "chunk"), ScanPairing(pixels, [], list))[0, :, 0]
        array([-1,  0,  0,  1,  1,  2,  2])
    """
    segmented = protocol.segmented_slices(pairing.query_pixels)
    if protocol.expected_span is not None:
        segmented = expected_slices(protocol, pairing)
    chunks = _CHOICES[protocol.support_choice](segmented, protocol.num_chunks)
    return np.where(segmented[..., None], chunks, -1)


def expected_slices(protocol: Protocol, pairing: ScanPairing) -> np.ndarray:
    """Find the query slices in which each class is expected, from where the support scans have it.

    The first and last edge of the class are carried over from each support scan that holds it and averaged. A slice
    whose middle lies between them is expected to hold the class; where they lie within one slice, that one.

    Args:
        protocol: a protocol with an ``expected_span``.
        pairing: the query and its support scans.

    Returns:
        (N, D) bool.
    """
    depth = pairing.query_pixels.shape[1]
    if protocol.expected_span == ExpectedSpan.ALIGNED:
        lines = [align_slices(matrix) for matrix in pairing.similarity()]
    else:
        lines = [(0.0, float(pixels.shape[1])) for pixels in pairing.support_pixels]
    edges = []
    for pixels, (begin, end) in zip(pairing.support_pixels, lines, strict=True):
        held = pixels >= protocol.min_pixels
        first, last = held.argmax(1), held.shape[1] - held[:, ::-1].argmax(1)
        place = (np.stack([first, last]) - begin) / (end - begin) * depth
        edges.append(np.where(held.any(1), place, np.nan))
    low, high = np.nanmean(edges, axis=0)[..., None]
    slices = np.arange(depth)
    return ((slices + 0.5 >= low) & (slices + 0.5 <= high)) | (slices == np.floor((low + high) / 2))


def slice_similarity(query: torch.Tensor, support: torch.Tensor) -> np.ndarray:
    """Compare the appearance of slices: the correlation of what sets their thumbnails apart from their volume's mean.

    Args:
        query: (C, H, W, D).
        support: (C, H', W', D').

    Returns:
        (D, D'), from -1 to 1; 0 where a slice does not differ from its volume's mean.
    """
    with torch.autocast(query.device.type, enabled=False):
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


def _by_chunk(segmented: np.ndarray, num_chunks: int) -> np.ndarray:
    depth = segmented.shape[1]
    first = segmented.argmax(1)[:, None]
    last = depth - 1 - segmented[:, ::-1].argmax(1)[:, None]
    chunk = (np.arange(depth) - first) * num_chunks // np.maximum(last - first, 1)
    return chunk.clip(0, num_chunks - 1)[..., None]


def _by_share(segmented: np.ndarray, num_chunks: int) -> np.ndarray:
    rank = segmented.cumsum(1) - 1
    borders = np.linspace(0, segmented.sum(1), num_chunks + 1, axis=1).astype(int)
    return (rank[..., None] >= borders[:, None, :-1]).sum(-1, keepdims=True) - 1


def _all_at_once(segmented: np.ndarray, num_chunks: int) -> np.ndarray:
    return np.zeros((*segmented.shape, 1), dtype=int)


def _every_chunk(segmented: np.ndarray, num_chunks: int) -> np.ndarray:
    return np.broadcast_to(np.arange(num_chunks), (*segmented.shape, num_chunks))


_CHOICES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    SupportChoice.CHUNK: _by_chunk,
    SupportChoice.SHARE: _by_share,
    SupportChoice.ALL: _all_at_once,
    SupportChoice.AVERAGE: _every_chunk,
}
