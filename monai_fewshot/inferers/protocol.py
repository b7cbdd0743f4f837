# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.utils import StrEnum, ensure_tuple

__all__ = [
    "PROTOCOLS",
    "RANDOM_EPISODES",
    "ExpectedSpan",
    "QuerySlices",
    "ScanReduction",
    "SegmentationProtocol",
    "SupportChoice",
    "get_protocol",
    "get_protocols",
]


class QuerySlices(StrEnum):
    """Which slices of the query are scored for a class.

    - ``SPAN``: from the first slice of the class to the last, slices between them that miss it included.
    - ``PRESENT``: the slices that hold the class.
    - ``VOLUME``: all slices; the query's ground truth is not used.
    """

    SPAN = "span"
    PRESENT = "present"
    VOLUME = "volume"


class SupportChoice(StrEnum):
    """How a query slice finds its support among the chunks of the support scan.

    - ``CHUNK``: the range from the first to the last segmented slice is cut into chunks of equal height; a slice is
      segmented after the support slices of its chunk.
    - ``SHARE``: the list of segmented slices is cut into chunks of equal length.
    - ``ALL``: the support slices of all chunks are the shots of one episode, which serves every query slice.
    - ``AVERAGE``: every chunk segments every slice, the margins are averaged.
    """

    CHUNK = "chunk"
    SHARE = "share"
    ALL = "all"
    AVERAGE = "average"


class ExpectedSpan(StrEnum):
    """Where a class is expected in a query volume that nobody has annotated.

    - ``HEIGHT``: at the relative height of the volume at which the support volume has it.
    - ``ALIGNED``: where the support volume has it, in millimeters, once the query is moved along the slice axis until
      its slices look most like those of the support volume. Where they do not look alike, every slice is segmented
      (``monai_fewshot.inferers.support_choice.align_slices``).
    """

    HEIGHT = "height"
    ALIGNED = "aligned"


class ScanReduction(StrEnum):
    """How the scores of scans become one: their ``MEAN`` or their ``MEDIAN``; ``RUNS`` is for random episodes."""

    MEAN = "mean"
    MEDIAN = "median"
    RUNS = "runs"


_CHOICES: dict[str, Any] = {
    "query_slices": QuerySlices,
    "support_choice": SupportChoice,
    "expected_span": ExpectedSpan,
    "scan_reduction": ScanReduction,
}


@dataclass(frozen=True)
class SegmentationProtocol:
    """How a query volume is segmented slice by slice after the example of support volumes: data, not code.

    ``dataclasses.replace(PROTOCOLS["alpnet"], name="alpnet_5", num_chunks=5)`` makes a variant.

    Attributes:
        name: what reports call it.
        num_chunks: number of chunks the class's height is cut into, 1 or more. Each has its own support slices.
        query_slices: which slices of the query are scored; no others are segmented.
        support_choice: how a query slice finds its support.
        shots_per_chunk: support slices a chunk takes from each support scan, 1 or more.
        min_pixels: pixels of a class a slice must have at least to count as holding it, in support and query.
        expected_span: where the class is expected in a whole volume; slices beyond are taken not to hold it and are
            not segmented, but scored. None: every scored slice is segmented.
        scan_reduction: how the scores of scans become one.

    Raises:
        ValueError: where a value is out of its range.
    """

    name: str
    num_chunks: int
    query_slices: QuerySlices | str
    support_choice: SupportChoice | str
    shots_per_chunk: int = 1
    min_pixels: int = 1
    expected_span: ExpectedSpan | str | None = None
    scan_reduction: ScanReduction | str = ScanReduction.MEAN

    def __post_init__(self) -> None:
        for field in ("num_chunks", "shots_per_chunk", "min_pixels"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Protocol {self.name!r}: {field} must be an integer of 1 or more, got {value!r}.")
        for field, kind in _CHOICES.items():
            value, allowed = getattr(self, field), [str(item) for item in kind]
            if value not in allowed and not (field == "expected_span" and value is None):
                raise ValueError(f"Protocol {self.name!r}: {field} must be one of {allowed}, got {value!r}.")
            object.__setattr__(self, field, None if value is None else kind(value))
        if self.expected_span is not None and self.needs_query_label:
            raise ValueError(
                f"Protocol {self.name!r}: expected_span is for query_slices 'volume'; under "
                f"{str(self.query_slices)!r} the query's ground truth says where the class is."
            )

    @property
    def needs_query_label(self) -> bool:
        """Whether the query's ground truth says which slices are segmented."""
        return self.query_slices != QuerySlices.VOLUME

    def support_slices(self, slices_with_class: Sequence[int] | np.ndarray) -> np.ndarray:
        """Choose each chunk's support slices: the middle one, or the middles of its equal parts.

        Of L slices in order, with n chunks of s shots, those at ``int((2i + 1) / (2 n s) * L)``, i = 0 .. ns - 1,
        computed in whole numbers.

        Args:
            slices_with_class: indices of the support slices that hold the class, ascending, at least one.

        Returns:
            (num_chunks, shots_per_chunk) slice indices. A slice serves several chunks where there are too few.
        """
        slices, parts = np.asarray(slices_with_class), self.num_chunks * self.shots_per_chunk
        if slices.size == 0:
            raise ValueError("slices_with_class is empty: a class without a support slice cannot be segmented.")
        positions = (2 * np.arange(parts) + 1) * slices.size // (2 * parts)
        return slices[positions].reshape(self.num_chunks, self.shots_per_chunk)

    def segmented_slices(self, pixels: np.ndarray) -> np.ndarray:
        """Find the query slices that are segmented and scored; an expected span leaves out some of the former.

        Args:
            pixels: (..., D) pixels of a class in each slice of the query's ground truth, as
                :func:`monai_fewshot.utils.pixels_per_slice` counts them. For whole volumes only D matters.

        Returns:
            (..., D) bool.
        """
        held = np.asarray(pixels) >= self.min_pixels
        if self.query_slices == QuerySlices.VOLUME:
            return np.ones_like(held)
        if self.query_slices == QuerySlices.PRESENT:
            return held
        since_first = np.logical_or.accumulate(held, axis=-1)
        until_last = np.logical_or.accumulate(held[..., ::-1], axis=-1)[..., ::-1]
        return since_first & until_last


PROTOCOLS: dict[str, SegmentationProtocol] = {
    protocol.name: protocol
    for protocol in (
        SegmentationProtocol("alpnet", 3, QuerySlices.SPAN, SupportChoice.CHUNK),
        SegmentationProtocol("adnet_ep1", 3, QuerySlices.PRESENT, SupportChoice.SHARE),
        SegmentationProtocol("adnet_ep2", 1, QuerySlices.VOLUME, SupportChoice.ALL),
        SegmentationProtocol(
            "senet",
            10,
            QuerySlices.SPAN,
            SupportChoice.CHUNK,
            min_pixels=11,
            scan_reduction=ScanReduction.MEDIAN,
        ),
        SegmentationProtocol(
            "whole_volume",
            3,
            QuerySlices.VOLUME,
            SupportChoice.CHUNK,
            shots_per_chunk=2,
            expected_span=ExpectedSpan.ALIGNED,
        ),
    )
}
"""Published protocols, and one for use.

- ``alpnet``: three chunks between the first and the last query slice of the class. Ouyang et al., ECCV 2020,
  https://arxiv.org/abs/2007.09886, after Roy et al. (below).
- ``adnet_ep1``: only slices that hold the class, in three equal shares; ``adnet_ep2``: every slice, one middle support
  slice, no ground truth of the query. Hansen et al., "Anomaly detection-inspired few-shot medical image segmentation
  through self-supervision with supervoxels", Medical Image Analysis 2022, https://arxiv.org/abs/2203.02048.
- ``senet``: as ``alpnet``, a slice holds the class where it has more than 10 pixels of it, median over scans. Roy et
  al., "'Squeeze & excite' guided few-shot segmentation of volumetric images", Medical Image Analysis 2020,
  https://arxiv.org/abs/1902.01314. Ten chunks as in the published code. Deviation: that code also segments the slice
  before the first one, and its last chunk is the last slice alone.
- ``whole_volume``: every slice of a volume that nobody has annotated. The query is aligned to the support along the
  slice axis, and a class is expected where the aligned support has it. Measured on pairs of training scans, when the
  query was also stretched along that axis, Dice in percent: on CHAOS 35 with all support slices for every query slice,
  45 with the class expected at the support's relative height and 51 aligned, where the query's ground truth gives 60;
  on cardiac scans 53 aligned or by height and
  54 with two shots a chunk, where the ground truth gives 58.

Deviation, all: positions are computed in whole numbers. The originals' rounding moves a slice by one in a few cases
with nine or more chunks; with three, five and seven chunks there is none.
"""

RANDOM_EPISODES = SegmentationProtocol(
    "random_episodes", 1, QuerySlices.VOLUME, SupportChoice.ALL, scan_reduction=ScanReduction.RUNS
)
"""How 2D methods are evaluated: runs of episodes, each a random class with random support and query images
(:class:`monai_fewshot.workflows.EpisodeEvaluation`). An episode stands in the place of a scan, a run in that of a
fold."""


def get_protocol(protocol: SegmentationProtocol | str) -> SegmentationProtocol:
    """Look up a protocol by its name.

    Args:
        protocol: name in :data:`PROTOCOLS`, or a protocol, which is returned as it is.

    Raises:
        ValueError: where there is no protocol of that name.

    Example:
        >>> get_protocol("alpnet").num_chunks
        3
    """
    if isinstance(protocol, SegmentationProtocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise ValueError(f"There is no protocol {protocol!r}. Choose one of {sorted(PROTOCOLS)}, or pass a protocol.")
    return PROTOCOLS[protocol]


def get_protocols(
    protocols: SegmentationProtocol | str | Sequence[SegmentationProtocol | str],
) -> tuple[SegmentationProtocol, ...]:
    """Look up one or several protocols that stand side by side and are told apart by their names.

    Args:
        protocols: a name in :data:`PROTOCOLS` or a protocol, or several of them.

    Raises:
        ValueError: where there is no protocol of a name, none is given, or two have the same name.

    Example:
        >>> [protocol.num_chunks for protocol in get_protocols(["alpnet", "senet"])]
        [3, 10]
    """
    found = tuple(get_protocol(item) for item in ensure_tuple(protocols))
    names = [protocol.name for protocol in found]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"One or several protocols of different names are needed, got {names}.")
    return found
