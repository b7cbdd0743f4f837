# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

__all__ = ["NumberedSamples", "numbered_random"]


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
