# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from monai_fewshot.utils import default_dtype

VARIABLE = "MONAI_FEWSHOT_DTYPE"


@pytest.fixture(autouse=True)
def _device_decides(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_gpus_since_ampere_multiply_bfloat16(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert default_dtype("cuda:0") == dtype


@pytest.mark.parametrize("avx512", [False, True])
def test_a_cpu_computes_in_float32_whatever_its_instructions(monkeypatch, avx512):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert default_dtype(torch.device("cpu")) == torch.float32


@pytest.mark.parametrize("capability", [(7, 5), (8, 0)])
@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_environment_overrides_the_device(monkeypatch, device, wanted, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setenv(VARIABLE, wanted)
    assert default_dtype(device) == getattr(torch, wanted)
    monkeypatch.setenv(VARIABLE, "")
    assert default_dtype(device) == (torch.bfloat16 if (device, capability) == ("cuda", (8, 0)) else torch.float32)


def test_a_device_that_is_not_there():
    with pytest.raises(
        ValueError, match=r"--device is 'cuda:3', which is not here. Devices that would work: cpu, cuda"
    ):
        default_dtype("cuda:3")


@pytest.mark.parametrize("wanted", ["float16", "torch.float32", "BFLOAT16", "1"])
def test_another_value_is_refused_with_those_that_work(monkeypatch, wanted):
    monkeypatch.setenv(VARIABLE, wanted)
    with pytest.raises(ValueError, match=f"{VARIABLE} is '{wanted}': set it to float32 or bfloat16, or unset it"):
        default_dtype("cpu")


STEP = """
import torch
from monai_fewshot.networks.encoders import UNetEncoder
from monai_fewshot.networks.nets import ALPNet
from monai_fewshot.utils import autocast, default_dtype

torch.manual_seed(0)
network = ALPNet(2, UNetEncoder(2, 1, channels=(4, 8), out_channels=8, norm="instance"), train_window=4, eval_window=2)
images, mask = torch.rand(2, 1, 32, 32), torch.zeros(1, 1, 1, 32, 32)
mask[..., 8:20, 8:20] = 1

def step(dtype):
    with autocast("cpu", dtype):
        logits = network(images[:1], images[None, 1:], mask)[0]
    return logits, *torch.autograd.grad(logits.square().mean(), network.encoder.project.parameters())

for exact, rough in zip(step(torch.float32), step(default_dtype("cpu"))):
    difference = ((rough - exact).norm() / exact.norm()).item()
    assert 0 < difference < 0.05, difference
"""


def test_bfloat16_is_right_without_its_instructions():
    limits = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", VARIABLE: "bfloat16"}
    words = [sys.executable, "-c", STEP]
    done = subprocess.run(words, env={**os.environ, **limits}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
