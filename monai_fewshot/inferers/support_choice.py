# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from .protocol import ExpectedSpan, SegmentationProtocol, SupportChoice

__all__ = [
    "ScanPairing",
    "SliceAlignment",
    "align_slices",
    "choose_chunks",
    "expected_slices",
    "slice_direction",
    "slice_similarity",
]

THUMBNAIL = 16
LEAST_SIMILARITY = 0.1
logger = logging.getLogger(__name__)


class SliceAlignment(NamedTuple):
    """Where a query volume lies on the slice axis of a support volume, whose slice s covers s to s + 1.

    Attributes:
        begin: where the first query slice begins; above ``end`` where the slices are in reverse order.
        end: where the last one ends.
        doubt: why the alignment is not to be trusted; empty where it is.
    """

    begin: float
    end: float
    doubt: str = ""


@dataclass(frozen=True)
class ScanPairing:
    """What is known of a query volume and its support scans when support slices are chosen.

    Attributes:
        query_pixels: (N, D) pixels of each class in each query slice; for whole volumes only its shape matters.
        support_pixels: for each support scan (N, D of that scan).
        align: aligns the query with each support scan; called only where a protocol asks for it.
    """

    query_pixels: np.ndarray
    support_pixels: Sequence[np.ndarray]
    align: Callable[[], Sequence[SliceAlignment]]


def choose_chunks(protocol: SegmentationProtocol, pairing: ScanPairing) -> tuple[np.ndarray, np.ndarray]:
    """Choose the slices in which each class is segmented, and the chunks whose support slices serve each query slice.

    Args:
        protocol: the protocol.
        pairing: the query and its support scans.

    Returns:
        (N, D) bool, and (N, D, R) chunk numbers, the nearest ones beyond the segmented slices. R is 1, or
        ``num_chunks`` where every chunk segments a slice.

    Example:
        >>> pixels = np.array([[0, 5, 5, 0, 5, 5, 5]])
        >>> from monai_fewshot.inferers import PROTOCOLS
        >>> segmented, chunks = choose_chunks(PROTOCOLS["alpnet"], ScanPairing(pixels, [], list))
        >>> segmented[0].astype(int), chunks[0, :, 0]
        (array([0, 1, 1, 1, 1, 1, 1]), array([0, 0, 0, 1, 1, 2, 2]))
    """
    segmented = protocol.segmented_slices(pairing.query_pixels)
    if protocol.expected_span is not None:
        segmented = expected_slices(protocol, pairing)
    return segmented, _CHOICES[protocol.support_choice](segmented, protocol.num_chunks)


def expected_slices(protocol: SegmentationProtocol, pairing: ScanPairing) -> np.ndarray:
    """Find the query slices in which each class is expected, from where the support scans have it.

    The first and last edge of the class are carried over from each support scan that holds it and averaged; scans
    whose alignment is in doubt are left out, which a log message says. A slice whose middle lies between the edges is
    expected to hold the class; where they lie within one slice, that one. All slices are where no scan is left.

    Args:
        protocol: a protocol with an ``expected_span``.
        pairing: the query and its support scans.

    Returns:
        (N, D) bool.
    """
    depth = pairing.query_pixels.shape[1]
    if protocol.expected_span == ExpectedSpan.ALIGNED:
        lines = pairing.align()
    else:
        lines = [SliceAlignment(0.0, float(pixels.shape[1])) for pixels in pairing.support_pixels]
    edges = []
    for number, (pixels, (begin, end, doubt)) in enumerate(zip(pairing.support_pixels, lines, strict=True)):
        if doubt:
            logger.warning(
                "The slices of support scan %d cannot be aligned with those of the query: %s. Classes are looked for "
                "where other support scans have them, or else in all slices.",
                number,
                doubt,
            )
        held = pixels >= protocol.min_pixels
        first, last = held.argmax(1), held.shape[1] - held[:, ::-1].argmax(1)
        places = np.sort((np.stack([first, last]) - begin) / (end - begin) * depth, axis=0)
        edges.append(np.where(held.any(1) & (not doubt), places, np.nan))
    known = np.array(edges)
    known[:, :, np.isnan(known).all((0, 1))] = np.array([[0], [depth]])
    low, high = np.nanmean(known, axis=0)[..., None]
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


def align_slices(
    similarity: np.ndarray, query_affine: np.ndarray, support_affine: np.ndarray | None = None
) -> SliceAlignment:
    """Find where the query volume lies on the slice axis of the support volume.

    Both volumes have their sizes in mm and the direction of their slices from their affines, so that only the distance
    d of their middles is looked for. The greatest value of

    ``s(d) - 2.5 e(d)^2``

    wins. ``s`` is the sum of the similarities of the query slices to the places in the support on which their middles
    come to lie (interpolated between its slices), each minus the mean of all similarities and times the query's slice
    distance, divided by the height of the lower volume; ``e`` is how far the lower volume reaches beyond the higher
    one, in its own heights. It may do so by half its height, the edge of the search. (A greater factor predicts better
    where organs of real scans begin and end, a smaller one where fields of view of phantoms were moved by 40 mm.)

    The alignment is in doubt within half a slice of the edge of the search, where the volumes' slices are cut at more
    than 60 degrees to one another, and where ``s`` is below 0.1. On pairs of phantoms, MR and CT, of any spacing, order
    and field of view, ``s`` was 0.2 to 0.45 and organs began and ended 5 mm from where they were predicted; against
    noise and constant volumes it was 0 to 0.03, against shuffled slices 0.06 and slices of other directions 0.03 to 0.1
    (medians).

    Args:
        similarity: (D, D'), see :func:`slice_similarity`.
        query_affine: (4, 4) in mm.
        support_affine: the same; default that of the query.

    Returns:
        The alignment; two volumes of a single slice are of the same one.
    """
    if similarity.size == 1:
        return SliceAlignment(0.0, 1.0)
    support_affine = query_affine if support_affine is None else support_affine
    direction = slice_direction(query_affine, support_affine)
    similarity = similarity if direction > 0 else similarity[:, ::-1]
    depth, support_depth = similarity.shape
    step, support_step = (float(np.linalg.norm(affine[:3, 2])) for affine in (query_affine, support_affine))
    height, support_height = depth * step, support_depth * support_step
    lower, higher = sorted((height, support_height))
    steps = int(np.ceil(4 * higher / 2 / min(step, support_step)))
    shift = np.linspace(-higher / 2, higher / 2, 2 * steps + 1)
    begin = shift + (support_height - height) / 2
    position = (begin[:, None] + (np.arange(depth) + 0.5) * step) / support_step - 0.5
    inside = np.abs(position - (support_depth - 1) / 2) <= support_depth / 2
    below = np.floor(position).astype(int)
    lower_slice, upper_slice = (
        similarity[np.arange(depth), (below + offset).clip(0, support_depth - 1)] for offset in (0, 1)
    )
    looked_up = lower_slice + (upper_slice - lower_slice) * (position - below)
    gain = np.where(inside, looked_up - similarity.mean(), 0).sum(1) * step / lower
    beyond = np.maximum(np.abs(shift) - (higher - lower) / 2, 0) / lower
    best = int((gain - 2.5 * beyond**2).argmax())
    first, last = (float(begin[best] + part) / support_step for part in (0, height))
    if direction < 0:
        first, last = support_depth - first, support_depth - last
    return SliceAlignment(
        first,
        last,
        _doubt(float(gain[best]), abs(direction), abs(shift[best]) > higher / 2 - 0.6 * min(step, support_step)),
    )


def slice_direction(query_affine: np.ndarray, support_affine: np.ndarray) -> float:
    """Compute the cosine of the angle between the slice axes of two volumes, below 0 where they are opposed."""
    query, support = (affine[:3, 2] / np.linalg.norm(affine[:3, 2]) for affine in (query_affine, support_affine))
    return float(query @ support)


def _doubt(similarity: float, cosine: float, at_edge: bool) -> str:
    if cosine < 0.5:
        return f"their slices are cut at {np.degrees(np.arccos(cosine)):.0f} degrees to one another"
    if similarity < LEAST_SIMILARITY:
        return f"they look too little alike ({similarity:.2f}, less than {LEAST_SIMILARITY})"
    return "half of the lower one would lie beyond the other" if at_edge else ""


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
    return ((rank[..., None] >= borders[:, None, :-1]).sum(-1, keepdims=True) - 1).clip(0)


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
