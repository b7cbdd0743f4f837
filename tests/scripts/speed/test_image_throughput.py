# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The plain and the batched way of throughput.py make the same episodes, and train the same networks on them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import RandomizableTransform

from monai_fewshot.networks.nets import MaskSplitNet, SurrogateNetwork
from monai_fewshot.workflows import episode_loader

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import image_throughput
import step_timing

SETTINGS = {
    "threads": 1,
    "device": "cpu",
    "dtype": "float32",
    "channels_last": None,
    "compile": None,
    "steps": 1,
    "method_size": 48,
}


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    return image_throughput.phantom_methods(tmp_path_factory.mktemp("images"), 15)


@pytest.fixture
def same_stream(monkeypatch):
    """Without MONAI's own number for whether to transform, transforms of single images draw as batches do."""
    monkeypatch.setattr(RandomizableTransform, "randomize", lambda self, data: None)
    return lambda seed, index, counter=0: np.random.RandomState(
        np.random.Philox(key=np.array([seed, index], dtype=np.uint64), counter=[0, 0, 0, counter])
    )


def test_a_plain_episode_of_a_split_mask_is_that_of_the_batch(methods, same_stream):
    dataset = image_throughput.configuration(SETTINGS, methods[0], True).get_parsed_content("train#dataset")
    batch = dataset.__getitems__(range(4))
    for index, batched in enumerate(batch):
        plain = image_throughput.plain_mask_split(dataset, same_stream(dataset.seed, index))
        assert {key: x.shape for key, x in plain.items()} == {key: batched[key].shape for key in plain}
        for key, values in plain.items():
            atol = 0 if key.endswith("label") else 2e-3
            torch.testing.assert_close(values, batched[key], atol=atol, rtol=0, msg=key)
        assert {0, 1} <= set(plain["label"].unique().tolist()) <= {0, 1, 255}
    assert any((episode["label"] == 255).any() for episode in batch), "no mask was split"


@pytest.mark.parametrize(("which", "network"), [(0, MaskSplitNet), (1, SurrogateNetwork)])
def test_networks_and_settings_are_those_of_the_bundles(methods, which, network):
    fast, plain = (image_throughput.configuration({**SETTINGS, "dtype": "bfloat16"}, methods[which], p) for p in (0, 1))
    assert isinstance(fast.get_parsed_content("network"), network)
    assert fast.get_parsed_content("train#inferer").dtype == torch.bfloat16
    assert plain.get_parsed_content("train#inferer").dtype == torch.float32
    batch = next(iter(episode_loader(fast.get_parsed_content("train#dataset"), 8)))
    assert batch["image"].shape == (8, 3, 48, 48)


@pytest.mark.parametrize("plain", [False, True])
def test_image_cells_add_up(methods, plain, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setattr(image_throughput, "LOADER_PROCESSES", 1)
    cell = image_throughput.image_method_cell(SETTINGS, methods[0], plain)
    assert cell["episodes_per_s"] == pytest.approx(8 / cell["step_s"])
    assert 0 < cell["making_share"] < 1


def test_an_encoder_is_told_from_what_comes_after(monkeypatch):
    clock = iter([0, 0, 0, 0, 0] * 2 + [0, 1, 4, 9, 16, 20, 21, 24, 29, 36])
    monkeypatch.setattr(step_timing, "synchronized", lambda device: next(clock))
    encoder = torch.nn.Linear(2, 2)
    seconds = step_timing.encoder_seconds(lambda: encoder(torch.ones(1, 2)).square().sum(), encoder, "cpu", 2)
    assert seconds == [10, 6]
    encoder(torch.ones(1, 2)).sum().backward()


def test_steps_are_timed_after_the_warm_up(monkeypatch):
    clock = iter([0, 50, 90, 0, 50, 90, 0, 1, 5, 10, 13, 20, 30, 32, 38])
    monkeypatch.setattr(step_timing, "synchronized", lambda device: next(clock))
    made, taken = iter(range(5)), []

    def step(batch):
        taken.append(batch)
        if batch < 2:
            next(clock)

    timed = step_timing.timed_steps(lambda: next(made), step, 3, "cpu", 4)
    assert timed == {"step_s": 8, "making_share": 0.25, "episodes_per_s": 0.5}
    assert taken == [0, 1, 2, 3, 4]
