# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._pytree import tree_map
from tqdm import tqdm

from monai_fewshot.networks.nets import FewShotSegmenter
from monai_fewshot.utils import device_tensor, pixels_per_slice, resize_slices

from .protocol import SegmentationProtocol
from .support_choice import ScanPairing, align_slices, choose_chunks, slice_similarity
from .support_encoding import EncodedSupport, SupportEncoder, SupportEpisode, SupportScan, chunk_shots
from .volume_inferer import QueryScan, VolumeInferer, check_margins, winning_margins

__all__ = ["NOT_SEGMENTED", "FewShotVolumeInferer"]

NOT_SEGMENTED = -1e4


class FewShotVolumeInferer(VolumeInferer):
    """Segments query volumes slice by slice after the example of annotated support volumes, under a protocol.

    A network of one foreground class segments each class in its own binary episode. One of W foreground classes
    segments W of them in an episode, whose support slices are those of all its classes; where W does not divide the
    number of classes, the last episode repeats some. Each slice of the support is encoded once for all episodes by
    networks that encode it like a query (:class:`~monai_fewshot.networks.nets.PrototypeSegmenter`), by others once
    for each episode; each query slice that the protocol segments once for all classes and protocols. Slices, and pairs
    of a query slice and an episode, go through the network in batches. The support is not encoded again while its
    episodes and the network stay what they are
    (:class:`~monai_fewshot.inferers.support_encoding.SupportEncoder` says how that is found out).

    The margin of class c is its logit minus the highest of the others of its episode, background included, and minus
    the threshold; it is -1e4 in slices where the protocol does not segment the class or expects none of it. It is a
    score and no probability: episodes compare a class with the background alone, and many networks give similarities.

    It serves :class:`monai.engines.SupervisedEvaluator` as it is, with
    ``prepare_batch=PrepareBatchExtraInput(["support_image", "support_label", "label", "support_affine"])``.

    Args:
        protocol: see :class:`~monai_fewshot.inferers.VolumeInferer`, as what is not told here.
        num_classes: number of classes N in the labels.
        image_size: height and width at which the network works. Labels are resized by their nearest pixel, and the
            network gives its logits in the query's own size.
        batch_size: number of slices, or pairs of a slice and an episode, that go through the network at once.
        progress: whether to show a progress bar over the batches of a volume.
        threshold: how far a logit must exceed the others; it is subtracted from all margins. Networks trained with a
            lower weight on background than on foreground, as SSL-ALPNet is, draw objects too large at 0.
        dtype: of the network's convolutions and matrix products; similarities and margins are float32.
        way: number of the network's foreground classes W. Default: its ``num_classes``, or 1 where it has none.

    Example:
        >>> import torch
        >>> from monai_fewshot.inferers import FewShotVolumeInferer
        >>> from monai_fewshot.networks.nets import ALPNet
        >>> network = ALPNet(2, torch.nn.Conv2d(1, 8, 3, stride=2, padding=1)).eval()
        >>> support_label = torch.zeros(1, 1, 1, 32, 32, 6)
        >>> support_label[..., 8:24, 8:24, 1:5] = 1
        >>> inferer = FewShotVolumeInferer("alpnet")
        >>> query, support_image = torch.rand(1, 1, 32, 32, 9), torch.rand(1, 1, 1, 32, 32, 6)
        >>> inferer(query, network, support_image, support_label, label=torch.ones(1, 1, 32, 32, 9)).shape
        torch.Size([1, 2, 32, 32, 9])
    """

    def __init__(
        self,
        protocol: SegmentationProtocol | str | Sequence[SegmentationProtocol | str],
        num_classes: int | None = None,
        image_size: Sequence[int] | None = None,
        batch_size: int = 16,
        progress: bool = False,
        threshold: float = 0.0,
        dtype: torch.dtype = torch.float32,
        way: int | None = None,
    ) -> None:
        super().__init__(protocol, num_classes, image_size, batch_size, dtype)
        self.progress = progress
        self.threshold = threshold
        self.way = way
        self._encoder = SupportEncoder(batch_size)

    def segment(
        self, query: QueryScan, network: FewShotSegmenter, scans: Sequence[SupportScan]
    ) -> Sequence[torch.Tensor]:
        """Segment one volume; see :class:`~monai_fewshot.inferers.VolumeInferer`.

        Raises:
            ValueError: where a protocol needs a missing ``label``, or the network has more foreground classes than the
                support, or another number of them than it is said to have.
        """
        depth, height, width = query.image.shape[3], query.image.shape[1], query.image.shape[2]
        shape = (len(scans[0].pixels), depth, height, width)
        results = [query.image.new_full(shape, NOT_SEGMENTED) for _ in self.protocols]
        for slices, parts in self._parts(query, network, scans):
            for result, part in zip(results, parts, strict=True):
                result[:, slices] = part
        background = query.image.new_zeros(1, height, width, depth)
        return [torch.cat([background, result.permute(0, 2, 3, 1)]) for result in results]

    def segment_labels(
        self, query: QueryScan, network: FewShotSegmenter, scans: Sequence[SupportScan]
    ) -> Sequence[torch.Tensor]:
        """Segment one volume, with the margins of one batch of slices in memory at a time."""
        depth, height, width = query.image.shape[3], query.image.shape[1], query.image.shape[2]
        results = [query.image.new_zeros(depth, height, width) for _ in self.protocols]
        for slices, parts in self._parts(query, network, scans):
            for result, part in zip(results, parts, strict=True):
                check_margins(part)
                result[slices] = torch.cat([torch.zeros_like(part[:1]), part]).argmax(0).to(result.dtype)
        return [result.permute(1, 2, 0)[None] for result in results]

    def _parts(
        self, query: QueryScan, network: FewShotSegmenter, scans: Sequence[SupportScan]
    ) -> Iterator[tuple[torch.Tensor, list[torch.Tensor]]]:
        """Yield the margins (N, S, H, W) of each protocol, of batches of S slices, those that any of them segments."""
        height, width = query.image.shape[1], query.image.shape[2]
        size = self.image_size or (height, width)
        groups = self._groups(network, len(scans[0].pixels))
        plans = [self._plan(protocol, query, scans, groups) for protocol in self.protocols]
        support = self._encoder(network, scans, list(chain(*(plan.episodes for plan in plans))), size)
        numbered = [plan.numbered(support) for plan in plans]
        used = np.flatnonzero(np.any([(numbers >= 0).any((0, 2)) for numbers in numbered], axis=0))
        for slices in self._batches(used):
            chosen = device_tensor(slices, query.image.device)
            features = network.encode_query(resize_slices(query.image[..., chosen].permute(3, 0, 1, 2), size))
            pairs, places = _distinct_pairs([numbers[:, slices] for numbers in numbered])
            margins = self._classify(network, features, support, pairs, (len(groups[0]), height, width))
            shape = (len(scans[0].pixels), len(slices), height, width)
            parts = [query.image.new_full(shape, NOT_SEGMENTED) for _ in plans]
            for part, plan, place in zip(parts, plans, places, strict=True):
                _fill(part, margins, place, plan.segmented[:, slices], groups)
            yield chosen, parts

    def _groups(self, network: FewShotSegmenter, num_classes: int) -> list[range]:
        """Deal the classes, by index, out to episodes of W; the last one takes the last W classes."""
        way = int(getattr(network, "num_classes", 1)) if self.way is None else self.way
        if not 1 <= way <= num_classes:
            raise ValueError(
                f"The network segments {way} classes at once, but the support has {num_classes}: annotate so many, or "
                "take a network of one class."
            )
        starts = [min(start, num_classes - way) for start in range(0, num_classes, way)]
        return [range(start, start + way) for start in starts]

    def _plan(
        self, protocol: SegmentationProtocol, query: QueryScan, scans: Sequence[SupportScan], groups: Sequence[range]
    ) -> _Plan:
        if not protocol.needs_query_label:
            pixels = np.zeros((len(scans[0].pixels), query.image.shape[3]), dtype=int)
        elif query.label is None:
            raise ValueError(
                f"label is missing: {protocol.name} finds the slices to segment in the query's ground truth. Pass "
                "label, or use whole_volume, which needs none."
            )
        else:
            pixels = pixels_per_slice(query.label, len(scans[0].pixels))
        pairing = ScanPairing(
            pixels,
            [scan.pixels for scan in scans],
            lambda: [align_slices(slice_similarity(query.image, s.image), query.affine, s.affine) for s in scans],
        )
        segmented, chunks = choose_chunks(protocol, pairing)
        shots = chunk_shots(protocol, scans)
        episodes: list[SupportEpisode] = []
        numbers = []
        for group in groups:
            of_group = np.where(np.any(segmented[group], 0, keepdims=True)[..., None], chunks[group], -1).reshape(
                len(group), -1
            )
            alike = np.repeat(np.arange(len(shots[0]))[None], len(group), axis=0)
            choices, places = np.unique(np.concatenate([alike, of_group], axis=1), axis=1, return_inverse=True)
            known = (choices >= 0).all(0)
            place = np.where(known, np.cumsum(known) - 1 + len(episodes), -1)[places.ravel()[len(shots[0]) :]]
            numbers.append(place.reshape(chunks.shape[1:]))
            for choice in choices[:, known].T:
                taken = chain(*(shots[c][chunk] for c, chunk in zip(group, choice, strict=True)))
                episodes.append(SupportEpisode(tuple(c + 1 for c in group), tuple(dict.fromkeys(taken))))
        return _Plan(episodes, np.stack(numbers), segmented)

    def _classify(
        self,
        network: FewShotSegmenter,
        features: Any,
        support: EncodedSupport,
        pairs: np.ndarray,
        shape: tuple[int, int, int],
    ) -> torch.Tensor:
        """Return the margins (P, W, H, W) of P pairs of a row of ``features`` and an episode, ordered by episode."""
        margins = []
        borders = np.searchsorted(pairs[:, 1], [*support.first, np.iinfo(np.int64).max])
        for context, first, start, stop in zip(support.contexts, support.first, borders[:-1], borders[1:], strict=True):
            for begin, end in self._runs(pairs[start:stop, 1], network.separate_contexts):
                rows, numbers = torch.from_numpy(pairs[start + begin : start + end].T)
                numbers = numbers[:1] if network.separate_contexts else numbers
                logits = network.classify(_take(features, rows), _take(context, numbers - first), shape[1:]).float()
                expected = (len(rows), shape[0] + 1, *shape[1:])
                if logits.shape != expected:
                    raise ValueError(
                        f"The network gave logits of shape {tuple(logits.shape)}, not {expected}: it was taken for one "
                        f"of {shape[0]} foreground class(es). Give the inferer their number, way."
                    )
                margins.append(winning_margins(logits)[:, 1:] - self.threshold)
        return torch.cat(margins)

    def _runs(self, numbers: np.ndarray, separate: bool) -> Iterator[tuple[int, int]]:
        """Cut pairs, ordered by their episodes, into batches; into such of one episode each for separate contexts."""
        borders = np.flatnonzero(np.diff(numbers) if separate else []) + 1
        for part in np.split(np.arange(len(numbers)), borders):
            for begin in range(0, len(part), self.batch_size):
                batch = part[begin : begin + self.batch_size]
                yield int(batch[0]), int(batch[-1]) + 1

    def _batches(self, slices: np.ndarray) -> Iterator[np.ndarray]:
        starts = range(0, len(slices), self.batch_size)
        for start in tqdm(starts, desc="slices", disable=not self.progress):
            yield slices[start : start + self.batch_size]


class _Plan(NamedTuple):
    """How a protocol segments a query.

    Attributes:
        episodes: that it needs, group by group.
        places: (G, D, R) which of them segment a group of classes in a slice, -1 for none.
        segmented: (N, D) where each class is segmented.
    """

    episodes: list[SupportEpisode]
    places: np.ndarray
    segmented: np.ndarray

    def numbered(self, support: EncodedSupport) -> np.ndarray:
        """Turn places into the numbers of encoded episodes."""
        numbers = np.array([support.numbers[episode] for episode in self.episodes])
        return np.where(self.places >= 0, numbers[self.places], -1)


def _distinct_pairs(chosen: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Find the distinct (row, episode) pairs of several (G, rows, R) tables of episode numbers.

    Returns:
        Pairs (P, 2) ordered by episode, and for each table the place of its pairs among them, -1 where there is none.
    """
    codes = [np.where(n >= 0, n * n.shape[1] + np.arange(n.shape[1])[:, None], -1) for n in chosen]
    rows = chosen[0].shape[1]
    distinct = np.unique(np.concatenate([code.ravel() for code in codes]))
    distinct = distinct[distinct >= 0]
    places = [np.where(code >= 0, np.searchsorted(distinct, code), -1) for code in codes]
    return np.stack([distinct % rows, distinct // rows], axis=1), places


def _fill(
    result: torch.Tensor,
    margins: torch.Tensor,
    places: np.ndarray,
    segmented: np.ndarray,
    groups: Sequence[range],
) -> None:
    """Write margins (P, W, H, W), averaged over their ``places`` (G, rows, R), into (N, rows, H, W)."""
    group_index, row = np.nonzero((places >= 0).all(2))
    candidates = margins[device_tensor(places[group_index, row], margins.device)].mean(1)
    for channel in range(margins.shape[1]):
        class_index = np.array([group[channel] for group in groups])[group_index]
        kept = np.flatnonzero(segmented[class_index, row])
        target = device_tensor(np.stack([class_index, row])[:, kept], result.device)
        result[target[0], target[1]] = candidates[device_tensor(kept, margins.device), channel]


def _take(tree: Any, index: torch.Tensor) -> Any:
    return tree_map(lambda tensor: tensor[index.to(tensor.device, non_blocking=True)], tree)
