# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type
from torch.utils._pytree import tree_map
from tqdm import tqdm

from monai_fewshot.networks.nets import FewShotSegmenter
from monai_fewshot.utils import autocast, device_tensor, pixels_per_slice, resize_slices

from .protocol import Protocol, get_protocols
from .support_choice import ScanPairing, choose_chunks, slice_similarity
from .support_encoding import EncodedSupport, SupportEncoder, SupportEpisode, SupportScan, chunk_shots
from .volume_checks import SupportReader, check_query, check_query_label

__all__ = ["NOT_SEGMENTED", "FewShotVolumeInferer"]

NOT_SEGMENTED = -1e4


class FewShotVolumeInferer(Inferer):
    """Segments query volumes slice by slice after the example of annotated support volumes, under a protocol.

    Each class is its own binary episode. Each slice of the support is encoded once for each class and chunk it
    serves, each query slice that the protocol segments once for all classes and protocols; slices, and pairs of a
    query slice and a class, go through the network in batches. The support is not encoded again while it and the
    network stay what they are (:class:`~monai_fewshot.inferers.support_encoding.SupportEncoder` says how that is
    found out).

    Channel 0 of the result is 0. Channel c is the margin of class c in its own episode, the foreground logit minus the
    background logit and the threshold, and -1e4 in slices where the protocol does not segment the class or expects
    none of it. So ``result[:, c] > 0`` is class c alone, ``result.argmax(1)`` a label map of all classes.

    It serves :class:`monai.engines.SupervisedEvaluator` as it is, with
    ``prepare_batch=PrepareBatchExtraInput(["support_image", "support_label", "label"])``.

    Args:
        protocol: a protocol or its name in :data:`~monai_fewshot.inferers.PROTOCOLS`, or several; then the result is
            a dictionary from the protocols' names to what each gives.
        num_classes: number of classes N in the labels.
        image_size: height and width in pixels at which the network works. Images are resized by bilinear
            interpolation (smoothed where they shrink), labels by their nearest pixel, and the network gives its logits
            in the query's own size. Default: the query's size.
        batch_size: number of slices, or pairs of a slice and a class, that go through the network at once.
        progress: whether to show a progress bar over the batches of a volume.
        threshold: how far the foreground logit must exceed the background logit; it is subtracted from all margins.
            Networks trained with a lower weight on background than on foreground, as SSL-ALPNet is, draw objects too
            large at 0.
        dtype: of the network's convolutions and matrix products, as in
            :class:`~monai_fewshot.inferers.AutocastInferer`; similarities and margins are float32.

    Raises:
        ValueError: where an argument is out of its range or two protocols have the same name.

    Example:
        >>> import torch
        >>> from monai_fewshot.inferers import FewShotVolumeInferer
        >>> from monai_fewshot.networks.nets import ALPNet
        >>> network = ALPNet(2, torch.nn.Conv2d(1, 8, 3, stride=2, padding=1)).eval()
        >>> support_label = torch.zeros(1, 1, 1, 32, 32, 6)
        >>> support_label[..., 8:24, 8:24, 1:5] = 1
        >>> inferer = FewShotVolumeInferer("whole_volume", num_classes=1)
        >>> inferer(torch.rand(1, 1, 32, 32, 9), network, torch.rand(1, 1, 1, 32, 32, 6), support_label).shape
        torch.Size([1, 2, 32, 32, 9])
    """

    def __init__(
        self,
        protocol: Protocol | str | Sequence[Protocol | str],
        num_classes: int,
        image_size: Sequence[int] | None = None,
        batch_size: int = 16,
        progress: bool = False,
        threshold: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.protocols = get_protocols(protocol)
        self.single = isinstance(protocol, (Protocol, str))
        if num_classes < 1 or batch_size < 1:
            raise ValueError(f"num_classes and batch_size must be 1 or more, got {num_classes} and {batch_size}.")
        if image_size is not None and (len(image_size) != 2 or min(image_size) < 1):
            raise ValueError(f"image_size must be a height and a width of 1 or more, or None, got {image_size!r}.")
        self.num_classes = num_classes
        self.image_size = None if image_size is None else (int(image_size[0]), int(image_size[1]))
        self.batch_size = batch_size
        self.progress = progress
        self.threshold = threshold
        self.dtype = dtype
        self._read_support = SupportReader(num_classes, self.protocols)
        self._encoder = SupportEncoder(batch_size)

    @torch.no_grad()
    def __call__(
        self,
        inputs: torch.Tensor,
        network: FewShotSegmenter,
        support_image: torch.Tensor | Sequence[torch.Tensor],
        support_label: torch.Tensor | Sequence[torch.Tensor],
        label: torch.Tensor | None = None,
    ) -> Any:
        """Segment query volumes.

        Args:
            inputs: query images (B, C, H, W, D), slices along the last axis.
            network: a network of one foreground class, in evaluation mode.
            support_image: (B or 1, K, C, H, W, D), or a list of K images (C, H, W, D) or (B or 1, C, H, W, D) where
                the support scans differ in size.
            support_label: the same with one channel: 0 background, 1..N the classes.
            label: the query's ground truth (B, 1, H, W, D), for protocols that need it.

        Returns:
            Margins (B, N+1, H, W, D), float32, of the type of ``inputs`` and with its affine; for several protocols a
            dictionary of them.

        Raises:
            ValueError: where shapes do not fit together, a protocol needs a missing ``label``, a label has values
                beyond the classes, a class is absent from the support, an image holds NaN or infinite values, or the
                network gives other than two channels.
        """
        check_query(inputs)
        check_query_label(label, inputs, [item for item in self.protocols if item.needs_query_label])
        truths = [None] * len(inputs) if label is None else list(label.as_subclass(torch.Tensor))
        results = []
        for index, volume in enumerate(inputs.as_subclass(torch.Tensor).float()):
            scans = self._read_support(support_image, support_label, index, len(inputs), volume)
            with autocast(inputs.device, self.dtype):
                results.append(self._segment(volume, network, scans, truths[index]))
        stacked = [torch.stack(margins) for margins in zip(*results, strict=True)]
        named = {
            protocol.name: convert_to_dst_type(margins, inputs, dtype=torch.float32)[0]
            for protocol, margins in zip(self.protocols, stacked, strict=True)
        }
        return next(iter(named.values())) if self.single else named

    def _segment(
        self, volume: torch.Tensor, network: FewShotSegmenter, scans: Sequence[SupportScan], label: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Segment one volume (C, H, W, D); return the margins (N+1, H, W, D) of each protocol."""
        size = self.image_size or (int(volume.shape[1]), int(volume.shape[2]))
        plans = [self._plan(protocol, volume, scans, label) for protocol in self.protocols]
        episodes = [episode for plan in plans for episode in plan.episodes]
        support = self._encoder(network, scans, episodes, size)
        numbered = [plan.numbered(support) for plan in plans]
        depth, height, width = volume.shape[3], volume.shape[1], volume.shape[2]
        results = [volume.new_full((self.num_classes, depth, height, width), NOT_SEGMENTED) for _ in plans]
        used = np.flatnonzero(np.any([(numbers >= 0).any((0, 2)) for numbers in numbered], axis=0))
        for slices in self._batches(used):
            image = volume[..., device_tensor(slices, volume.device)].permute(3, 0, 1, 2)
            features = network.encode_query(resize_slices(image, size))
            chosen = [numbers[:, slices] for numbers in numbered]
            pairs, places = _distinct_pairs(chosen)
            margins = self._classify(network, features, support, pairs, (height, width))
            for result, place in zip(results, places, strict=True):
                _fill(result, slices, margins, place)
        background = volume.new_zeros(1, height, width, depth)
        return [torch.cat([background, result.permute(0, 2, 3, 1)]) for result in results]

    def _plan(
        self, protocol: Protocol, volume: torch.Tensor, scans: Sequence[SupportScan], label: torch.Tensor | None
    ) -> _Plan:
        if protocol.needs_query_label and label is not None:
            pixels = pixels_per_slice(label, self.num_classes)
        else:
            pixels = np.zeros((self.num_classes, volume.shape[3]), dtype=int)
        shots = chunk_shots(protocol, scans)
        pairing = ScanPairing(
            pixels, [s.pixels for s in scans], lambda: [slice_similarity(volume, s.image) for s in scans]
        )
        episodes = [SupportEpisode(c + 1, chunk) for c, chunks in enumerate(shots) for chunk in chunks]
        return _Plan(episodes, choose_chunks(protocol, pairing))

    def _classify(
        self,
        network: FewShotSegmenter,
        features: Any,
        support: EncodedSupport,
        pairs: np.ndarray,
        size: tuple[int, int],
    ) -> torch.Tensor:
        """Return the margins (P, H, W) of P pairs of a row of ``features`` and an episode, ordered by episode."""
        margins = []
        borders = np.searchsorted(pairs[:, 1], [*support.first, np.iinfo(np.int64).max])
        for context, first, start, stop in zip(support.contexts, support.first, borders[:-1], borders[1:], strict=True):
            for begin, end in self._runs(pairs[start:stop, 1], network.separate_contexts):
                rows, numbers = torch.from_numpy(pairs[start + begin : start + end].T)
                numbers = numbers[:1] if network.separate_contexts else numbers
                logits = network.classify(_take(features, rows), _take(context, numbers - first), size).float()
                if logits.shape != (len(rows), 2, *size):
                    raise ValueError(
                        f"The network gave logits of shape {tuple(logits.shape)}, not {(len(rows), 2, *size)}: a class "
                        "is segmented against the background, by a network of one foreground class."
                    )
                margins.append(logits[:, 1] - logits[:, 0] - self.threshold)
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
    """The ``episodes`` of a protocol (class by class, chunk by chunk) and the ``chunks`` (N, D, R) of query slices."""

    episodes: list[SupportEpisode]
    chunks: np.ndarray

    def numbered(self, support: EncodedSupport) -> np.ndarray:
        """Turn chunks into the numbers of encoded episodes, (N, D, R), -1 where there is none."""
        numbers = np.array([support.numbers[episode] for episode in self.episodes])
        table = numbers.reshape(len(self.chunks), -1)
        classes = np.arange(len(table)).reshape(-1, 1, 1)
        return np.where(self.chunks >= 0, table[classes, self.chunks], -1)


def _distinct_pairs(chosen: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Find the distinct (row, episode) pairs of several (N, rows, R) tables of episode numbers.

    Returns:
        Pairs (P, 2) ordered by episode, and for each table the place of its pairs among them, -1 where there is none.
    """
    codes = [np.where(n >= 0, n * n.shape[1] + np.arange(n.shape[1])[:, None], -1) for n in chosen]
    rows = chosen[0].shape[1]
    distinct = np.unique(np.concatenate([code.ravel() for code in codes]))
    distinct = distinct[distinct >= 0]
    places = [np.where(code >= 0, np.searchsorted(distinct, code), -1) for code in codes]
    return np.stack([distinct % rows, distinct // rows], axis=1), places


def _fill(result: torch.Tensor, slices: np.ndarray, margins: torch.Tensor, places: np.ndarray) -> None:
    """Write margins (P, H, W), averaged over their ``places`` (N, rows, R), into ``slices`` of (N, D, H, W)."""
    class_index, row = np.nonzero((places >= 0).all(2))
    candidates = margins[device_tensor(places[class_index, row], margins.device)]
    target = device_tensor(np.stack([class_index, slices[row]]), result.device)
    result[target[0], target[1]] = candidates.mean(1)


def _take(tree: Any, index: torch.Tensor) -> Any:
    return tree_map(lambda tensor: tensor[index.to(tensor.device, non_blocking=True)], tree)
