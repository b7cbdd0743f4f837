# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import DataLoader

from monai_fewshot.data import NumberedSamples, numbered_random


class Numbers(NumberedSamples):
    """Each sample is a drawn number; counts the batches asked for."""

    asked = 0

    def __getitems__(self, indices):
        self.asked += 1
        return [{"x": torch.tensor(numbered_random(self.seed, index).random_sample())} for index in indices]


def test_a_source_depends_on_seed_number_and_stream_alone():
    def draws(*arguments):
        return numbered_random(*arguments).random_sample(4)

    assert np.array_equal(draws(1, 2), draws(1, 2, 0))
    different = [draws(1, 2), draws(2, 1), draws(1, 3), draws(2, 2), draws(1, 2, 1), draws(1, 2, 2)]
    assert len({tuple(values) for values in different}) == 6


def test_a_loader_asks_for_whole_batches_and_numbers_go_on_beyond_the_length():
    samples = Numbers(5, seed=3)
    alone = [sample["x"].item() for sample in samples]
    assert len(samples) == len(alone) == 5
    samples.asked = 0
    loaded = torch.cat([batch["x"] for batch in DataLoader(samples, batch_size=2)]).tolist()
    assert loaded == pytest.approx(alone)
    assert samples.asked == 3
    assert samples[7]["x"] not in alone
