# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import is_dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._pytree import tree_map

from monai_fewshot.networks.nets import FewShotSegmenter, PrototypeSegmenter
from monai_fewshot.utils import device_tensor, resize_slices

from .protocol import SegmentationProtocol, SupportChoice

__all__ = ["EncodedSupport", "SupportEncoder", "SupportEpisode", "SupportScan", "chunk_shots"]


class SupportScan(NamedTuple):
    """An annotated scan.

    Attributes:
        image: (C, H, W, D).
        label: (H, W, D).
        pixels: per class and slice (N, D).
        affine: (4, 4) in mm, where it is known.
    """

    image: torch.Tensor
    label: torch.Tensor
    pixels: np.ndarray
    affine: np.ndarray | None = None


class SupportEpisode(NamedTuple):
    """The support of an episode: the numbers of its ``classes`` and its ``shots``, (scan, slice) pairs."""

    classes: tuple[int, ...]
    shots: tuple[tuple[int, int], ...]


class EncodedSupport(NamedTuple):
    """Encoded episodes.

    Attributes:
        numbers: the number of each episode.
        contexts: what the network made of them: episodes with equally many shots, in the order of their numbers,
            share a context.
        first: number of the first episode of each context.
    """

    numbers: dict[SupportEpisode, int]
    contexts: list[Any]
    first: list[int]


def chunk_shots(
    protocol: SegmentationProtocol, scans: Sequence[SupportScan]
) -> list[list[tuple[tuple[int, int], ...]]]:
    """Choose the support slices of each class and chunk from all scans that hold the class.

    Returns:
        For each class and chunk the (scan, slice) pairs, each once. One chunk holds all for the choice ``all``.
    """
    return [_class_shots(protocol, [scan.pixels[index] for scan in scans]) for index in range(len(scans[0].pixels))]


def _class_shots(protocol: SegmentationProtocol, pixels: Sequence[np.ndarray]) -> list[tuple[tuple[int, int], ...]]:
    held = [np.flatnonzero(counts >= protocol.min_pixels) for counts in pixels]
    tables = [(scan, protocol.support_slices(slices)) for scan, slices in enumerate(held) if slices.size]
    chunks = [
        [(scan, int(place)) for scan, table in tables for place in table[chunk]] for chunk in range(protocol.num_chunks)
    ]
    if protocol.support_choice == SupportChoice.ALL:
        chunks = [[shot for shots in chunks for shot in shots]]
    return [tuple(dict.fromkeys(shots)) for shots in chunks]


class SupportEncoder:
    """Encodes the episodes of a support, and keeps them while neither support nor network changes.

    What was encoded is used again only where the scans are the same list, the network is the same object, in evaluation
    mode, and all its tensors and plain attributes (numbers, texts, tuples and frozen dataclasses of them) and the
    autocast setting are equal in value to what they were. A copy of the weights is kept for that comparison, which
    waits for the device once for each type of them.

    Args:
        batch_size: number of slices encoded at a time.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._network: weakref.ref[FewShotSegmenter] | None = None
        self._scans: Sequence[SupportScan] | None = None
        self._attributes: list[Any] = []
        self._weights: dict[Any, torch.Tensor] = {}
        self._encoded: EncodedSupport | None = None

    def __call__(
        self,
        network: FewShotSegmenter,
        scans: Sequence[SupportScan],
        episodes: Sequence[SupportEpisode],
        size: Sequence[int],
    ) -> EncodedSupport:
        """Encode episodes.

        Args:
            network: the network.
            scans: the support scans.
            episodes: what to encode; each distinct one is encoded once.
            size: height and width the slices are resized to.

        Returns:
            The encoded episodes.
        """
        ordered = sorted(set(episodes), key=lambda episode: (len(episode.shots), episode))
        attributes = [ordered, tuple(size), _attributes(network), _autocast(scans[0].image.device)]
        weights = _weights(network)
        if self._encoded is None or not self._is_current(network, scans, attributes, weights):
            groups = [list(group) for _, group in groupby(ordered, key=lambda episode: len(episode.shots))]
            contexts = self._encode(network, *_gather(scans, groups, size))
            first = np.cumsum([0, *map(len, groups)])[:-1].tolist()
            self._encoded = EncodedSupport({e: number for number, e in enumerate(ordered)}, contexts, first)
            self._network, self._scans = weakref.ref(network), scans
            self._attributes, self._weights = attributes, weights
        return self._encoded

    def _is_current(
        self,
        network: FewShotSegmenter,
        scans: Sequence[SupportScan],
        attributes: list[Any],
        weights: dict[Any, torch.Tensor],
    ) -> bool:
        if network.training or self._network is None or self._network() is not network or scans is not self._scans:
            return False
        if attributes != self._attributes or weights.keys() != self._weights.keys():
            return False
        return all(torch.equal(new, self._weights[kind]) for kind, new in weights.items())

    def _encode(
        self, network: FewShotSegmenter, slices: torch.Tensor, groups: Sequence[tuple[torch.Tensor, torch.Tensor]]
    ) -> list[Any]:
        """Encode episodes of ``slices``, given by their rows and labels; each slice once, where the network can."""
        pool: Callable[[torch.Tensor, torch.Tensor], Any] = network.encode_support
        if isinstance(network, PrototypeSegmenter):
            slices = torch.cat([network.encode_query(part) for part in slices.split(self.batch_size)])
            pool = network.prototypes
        contexts = []
        for rows, labels in groups:
            at_once = max(1, self.batch_size // rows.shape[1])
            batches = zip(rows.split(at_once), labels.split(at_once), strict=True)
            pooled = [pool(slices[row], label) for row, label in batches]
            contexts.append(tree_map(lambda *parts: torch.cat(parts), *pooled))
        return contexts


def _gather(
    scans: Sequence[SupportScan], groups: Sequence[Sequence[SupportEpisode]], size: Sequence[int]
) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Cut out each slice once, (R, C, *size); find the rows (E, S) and labels (E, S, 1, *size) of each group."""
    shots = sorted({shot for group in groups for episode in group for shot in episode.shots})
    row = {shot: number for number, shot in enumerate(shots)}
    images, labels = [], []
    for scan, chosen in groupby(shots, key=lambda shot: shot[0]):
        places = device_tensor([place for _, place in chosen], scans[scan].image.device)
        image = scans[scan].image.index_select(-1, places).permute(3, 0, 1, 2)
        label = scans[scan].label.index_select(-1, places).permute(2, 0, 1).unsqueeze(1)
        images.append(resize_slices(image, size))
        labels.append(resize_slices(label, size, mode="nearest"))
    all_images, all_labels = torch.cat(images), torch.cat(labels)
    batches = []
    for group in groups:
        rows = device_tensor([[row[shot] for shot in episode.shots] for episode in group], all_images.device)
        values = np.zeros((len(group), len(scans[0].pixels) + 1), dtype=int)
        for number, episode in enumerate(group):
            values[number, episode.classes] = np.arange(1, 1 + len(episode.classes))
        numbers = torch.arange(len(group), device=all_images.device).view(-1, 1, 1, 1, 1)
        batches.append((rows, device_tensor(values, all_images.device)[numbers, all_labels[rows]]))
    return all_images, batches


def _weights(network: torch.nn.Module) -> dict[Any, torch.Tensor]:
    """Copy all tensors of a network, by type, device and shapes: those of a type and device one after another."""
    plain = [value for m in network.modules() for value in vars(m).values() if isinstance(value, torch.Tensor)]
    kinds: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
    for tensor in (*network.parameters(), *network.buffers(), *plain):
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor.detach())
    return {
        (*kind, *(tensor.shape for tensor in tensors)): torch.cat([tensor.flatten() for tensor in tensors])
        for kind, tensors in kinds.items()
    }


def _attributes(network: torch.nn.Module) -> list[dict[str, Any]]:
    return [{key: value for key, value in vars(m).items() if _is_plain(value)} for m in network.modules()]


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    if is_dataclass(value) and isinstance(value, Hashable):
        return all(map(_is_plain, vars(value).values()))
    return value is None or isinstance(value, (bool, int, float, str))


def _autocast(device: torch.device) -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)
