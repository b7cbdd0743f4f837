# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import mt_unet_attention

from monai_fewshot.networks.nets import MTUNet


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(mt_unet_attention, "LEVELS", ((8, 4, 2), (16, 8, 1)))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)


def test_another_attention_is_told_from_the_loop(small, monkeypatch):
    mt_unet_attention.check(96, 2, "cpu")
    ours = mt_unet_attention.VARIANTS["vectorized"]
    monkeypatch.setitem(
        mt_unet_attention.VARIANTS, "vectorized", lambda value, rows, columns, *rest: ours(value, columns, rows, *rest)
    )
    with pytest.raises(AssertionError, match="not close"):
        mt_unet_attention.check(96, 2, "cpu")


def test_levels_are_those_of_the_network():
    with torch.device("meta"):
        network = MTUNet()
    blocks = [*network.levels, *(up.blocks for up in network.up)]
    widths = [(level[0].norm_self.normalized_shape[0], len(level)) for level in blocks]
    assert widths == [(channels, number) for _, channels, number in mt_unet_attention.LEVELS]


def test_table(small, monkeypatch, capsys):
    clock = iter(x / 1000 for x in [0, 2, 2, 32, 40, 41, 41, 61] * 2)
    monkeypatch.setattr(mt_unet_attention, "synchronized", lambda device: next(clock))
    options = ["--image_size", "64", "--batch_sizes", "1", "--repeats", "2"]
    monkeypatch.setattr(sys, "argv", ["mt_unet_attention.py", *options])
    mt_unet_attention.main()
    rows = [re.split(r" *\| *", line)[1:-1] for line in capsys.readouterr().out.splitlines()]
    assert rows[2:] == [[kind, "1", "1.00", "20.0", "20.0"] for kind in ("forward", "with gradients")]
