# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import weakref
from collections.abc import Hashable, Sequence
from dataclasses import is_dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._pytree import tree_map

from monai_fewshot.networks.nets import FewShotSegmenter
from monai_fewshot.utils import device_tensor, resize_slices

from .protocol import Protocol, SupportChoice

__all__ = ["EncodedSupport", "SupportEncoder", "SupportEpisode", "SupportScan", "chunk_shots"]


class SupportScan(NamedTuple):
    """An annotated scan: ``image`` (C, H, W, D), ``label`` (H, W, D) and its ``pixels`` per class and slice (N, D)."""

    image: torch.Tensor
    label: torch.Tensor
    pixels: np.ndarray


class SupportEpisode(NamedTuple):
    """The support of one class's binary episode: the ``class_number`` and its ``shots``, (scan, slice) pairs."""

    class_number: int
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


def chunk_shots(protocol: Protocol, scans: Sequence[SupportScan]) -> list[list[tuple[tuple[int, int], ...]]]:
    """Choose the support slices of each class and chunk from all scans that hold the class.

    Returns:
        For each class and chunk the (scan, slice) pairs, each once. One chunk holds all for the choice ``all``.
    """
    return [_class_shots(protocol, [scan.pixels[index] for scan in scans]) for index in range(len(scans[0].pixels))]


def _class_shots(protocol: Protocol, pixels: Sequence[np.ndarray]) -> list[tuple[tuple[int, int], ...]]:
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
            contexts = [self._encode(network, *batch) for batch in _gather(scans, groups, size)]
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

    def _encode(self, network: FewShotSegmenter, images: torch.Tensor, labels: torch.Tensor) -> Any:
        episodes_at_once = max(1, self.batch_size // images.shape[1])
        contexts = [
            network.encode_support(image, label)
            for image, label in zip(images.split(episodes_at_once), labels.split(episodes_at_once), strict=True)
        ]
        return tree_map(lambda *parts: torch.cat(parts), *contexts)


def _gather(
    scans: Sequence[SupportScan], groups: Sequence[Sequence[SupportEpisode]], size: Sequence[int]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Cut out each slice once; make of them images (E, S, C, *size) and binary labels (E, S, 1, *size) per group."""
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
        classes = device_tensor([episode.class_number for episode in group], all_images.device)
        batches.append((all_images[rows], (all_labels[rows] == classes.view(-1, 1, 1, 1, 1)).to(all_labels.dtype)))
    return batches


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
