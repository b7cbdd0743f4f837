# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

__all__ = ["EpisodeSampler", "NumberedSamples", "numbered_random"]


def numbered_random(seed: int, number: int, stream: int = 0) -> np.random.RandomState:
    """Make the source of randomness of something that is a function of (seed, number) alone.

    Args:
        seed: of all of them.
        number: which one.
        stream: tells sources apart that share seed and number.
    """
    key = np.array([seed, number], dtype=np.uint64)
    return np.random.RandomState(np.random.Philox(key=key, counter=[0, 0, 0, stream]))


class NumberedSamples(Dataset):
    """Samples that are functions of (seed, number) alone, and made a batch at a time.

    Items are single samples; a data loader asks for a batch at once. Numbers beyond the length are further samples of
    the same kind, so that no epoch needs to repeat another (:class:`~monai_fewshot.data.EpisodeSampler`).

    Args:
        length: number of samples of an epoch.
        seed: of all draws.
    """

    def __init__(self, length: int, seed: int = 0) -> None:
        self.length = length
        self.seed = seed

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Make the samples of a batch."""

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return (self[index] for index in range(self.length))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([index])[0]


class EpisodeSampler(DistributedSampler):
    """Numbers of the episodes of each training epoch: consecutive, never repeated, dealt out over ranks.

    MONAI's engines tell a distributed sampler the epoch, so a resumed training goes on where it stopped.

    Args:
        dataset: episodes, or other numbered samples; their number is that of an epoch.
        num_replicas: number of processes, by default that of the process group, or 1.
        rank: of this process, by default in the process group, or 0.
    """

    def __init__(self, dataset: NumberedSamples, num_replicas: int | None = None, rank: int | None = None) -> None:
        if num_replicas is None and not torch.distributed.is_initialized():
            num_replicas, rank = 1, 0
        super().__init__(dataset, num_replicas, rank, shuffle=False, drop_last=True)

    def __iter__(self) -> Iterator[int]:
        start = max(self.epoch - 1, 0) * self.total_size
        return iter(range(start + self.rank, start + self.total_size, self.num_replicas))
