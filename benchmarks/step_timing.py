# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Clocks of throughput.py that wait for the device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

WARM_UP = 2


def synchronized(device: str) -> float:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def median_seconds(call: Callable[[], Any], device: str, repeats: int, warm_up: int = 1) -> float:
    seconds = []
    for index in range(warm_up + repeats):
        start = synchronized(device)
        call()
        if index >= warm_up:
            seconds.append(synchronized(device) - start)
    return statistics.median(seconds)


def encoder_seconds(loss: Callable[[], torch.Tensor], encoder: nn.Module, device: str, repeats: int) -> list[float]:
    """Time a loss and its gradients: medians for the encoder, forth and back, and for the rest."""
    marks: list[float] = []

    def mark(*_: Any) -> None:
        marks.append(synchronized(device))

    def left(module: nn.Module, inputs: Any, features: torch.Tensor) -> None:
        mark()
        features.register_hook(mark)

    hooks = encoder.register_forward_pre_hook(mark), encoder.register_forward_hook(left)
    taken = []
    for _ in range(WARM_UP + repeats):
        marks.clear()
        mark()
        loss().backward()
        mark()
        start, entered, ended, returned, end = marks
        inside = ended - entered + end - returned
        taken.append((inside, end - start - inside))
    for hook in hooks:
        hook.remove()
    return [statistics.median(seconds) for seconds in zip(*taken[WARM_UP:], strict=True)]


def timed_steps(
    make: Callable[[], Any], step: Callable[[Any], Any], steps: int, device: str, batch_size: int
) -> dict[str, float]:
    """Time training steps, after two to warm up: how long one takes, and what share of it goes into its episodes."""
    making, total = [], []
    for index in range(WARM_UP + steps):
        start = synchronized(device)
        batch = make()
        made = synchronized(device)
        step(batch)
        if index >= WARM_UP:
            making.append(made - start)
            total.append(synchronized(device) - start)
    seconds = statistics.median(total)
    return {
        "step_s": seconds,
        "making_share": statistics.median(making) / seconds,
        "episodes_per_s": batch_size / seconds,
    }
