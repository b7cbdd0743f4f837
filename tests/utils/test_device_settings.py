# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging

import pytest
import torch

from monai_fewshot.utils import check_device_settings, compiler_error, device_settings

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "tpu"}, "--device is 'tpu', which is not here. Devices that would work: cpu"),
        pytest.param({"device": "cuda"}, "Devices that would work: cpu.", marks=NO_GPU),
        ({"device": "mps"}, "--device is 'mps', which is not here"),
        ({"dtype": "float16"}, "--dtype float16 takes a loss scale.* Use float32 or bfloat16"),
        ({"dtype": torch.float64}, "--dtype torch.float64 does not work on cpu. Use float32 or bfloat16"),
        ({"dtype": "fast"}, "--dtype fast does not work on cpu. Use float32 or bfloat16"),
        ({"channels_last": "yes"}, "--channels_last is 'yes': use True, False"),
        ({"compile": 1}, "--compile is 1: use True, False"),
    ],
)
def test_what_a_device_cannot_serve_is_refused_with_what_it_can(settings, message):
    with pytest.raises(ValueError, match=message):
        check_device_settings(**{"device": "cpu", **settings})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", torch.bfloat16, None])
def test_device_and_precision_are_told(dtype, caplog):
    with caplog.at_level(logging.INFO):
        check_device_settings("cpu", dtype, channels_last=True, compile=False)
    assert "Computing on cpu (" in caplog.text
    assert dtype is None or f") in {str(dtype).removeprefix('torch.')}." in caplog.text


def test_a_compiler_that_does_not_work_is_told_before_it_is_needed(monkeypatch):
    monkeypatch.setattr(device_settings, "compiler_error", lambda device: "InvalidCxxCompiler: none found.")
    with pytest.raises(ValueError, match=r"--compile True does not work on cpu: InvalidCxxCompiler.*--compile False"):
        check_device_settings("cpu", "float32", compile=True)
    check_device_settings("cpu", "float32", compile=False)


@pytest.fixture
def broken_compiler(monkeypatch):
    """A machine on which no function can be compiled, and on which that has not been found out yet."""

    def refuse(*arguments, **options):
        raise RuntimeError("Cannot find a working triton installation.\nLong story.")

    monkeypatch.setattr(torch, "compile", refuse)
    device_settings._try_compiling.cache_clear()
    yield
    device_settings._try_compiling.cache_clear()


def test_why_nothing_can_be_compiled(broken_compiler):
    assert compiler_error(torch.device("cpu")) == "RuntimeError: Cannot find a working triton installation."


class Gpus:
    """What torch says of a machine with two GPUs of a generation."""

    def __init__(self, monkeypatch, bfloat16):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Model")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0) if bfloat16 else (7, 5))


def test_gpus(monkeypatch, caplog):
    Gpus(monkeypatch, bfloat16=True)
    with caplog.at_level(logging.INFO):
        check_device_settings("cuda:1", torch.bfloat16)
    assert "Computing on cuda:1 (Model) in bfloat16." in caplog.text
    with pytest.raises(ValueError, match=r"--device is 'cuda:2'.*would work: cpu, cuda, cuda:0, cuda:1"):
        check_device_settings("cuda:2")


def test_a_gpu_that_only_emulates_bfloat16(monkeypatch):
    Gpus(monkeypatch, bfloat16=False)
    with pytest.raises(ValueError, match=r"--dtype bfloat16 does not work on cuda:0. Use float32\."):
        check_device_settings("cuda:0", "bfloat16")
