# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""How fast meta-gradients are and how much memory they take, by inner steps and tasks, beside a plain loop over tasks.

    python benchmarks/meta_steps.py                                                  # a CPU
    python benchmarks/meta_steps.py --results docs/performance.md                    # and write the tables there
    python benchmarks/meta_steps.py --device cuda --image_size 256                   # a GPU

A meta-step is one meta-gradient of a batch of random tasks for MONAI's AttentionUnet with the loss of DiceBCELoss. Each
row is timed in a process of its own, its variants taking turns, and the fastest turn counts, since what else a machine
does only makes turns slower; the first is the warm-up. Each peak of memory is that of one meta-step in a process of its
own, after a tiny one: on a CPU resident memory beyond what the process had before, with an allocator that gives freed
blocks of 64 KiB and more back to the system at once, so that it is what lived at the same time; on a GPU likewise of
allocated memory. Where other work takes more cores than there are, ``--threads 1 --processor_time`` leaves out what a
turn waits for one.

The plain loop is MAML as learn2learn has it, in learn2learn/algorithms/maml.py and examples/vision/ of
https://github.com/learnables/learn2learn; we found no code of Khadka et al., whose few-shot segmentation the meta-steps
are for, and that of iMAML, https://github.com/aravindr93/imaml_dev, loops over tasks too. Alike: one task after another
in float32; each inner step makes new weights by ``torch.autograd.grad(..., create_graph=True)``; gradients of tasks are
added up one by one, so that one graph lives at a time. Kinder than the original: it clones no modules and copies no
data to the device in an inner step.

The loop's meta-gradient must be ours. Where an activation lies within a rounding error of a ReLU's kink, two
orders of summation differ by a finite jump, in the gradient of either. So the two are held to each other twice on small
images, in float64 and, with Softplus in the place of ReLU and PReLU, in float32; the difference in float32 with those
at full size is printed.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from meta_steps_report import CLAIMED_TASKS, COMPARED, FIXED_STEPS, FIXED_TASKS, report
from monai.networks.nets import AttentionUnet
from step_timing import synchronized
from throughput import resident_memory
from torch import nn
from torch.func import functional_call
from torch.profiler import ProfilerActivity, profile

from monai_fewshot.apps.benchmark import replace_between
from monai_fewshot.apps.bundles import KEEP_MEMORY
from monai_fewshot.losses import DiceBCELoss
from monai_fewshot.meta import MAML, ImplicitMAML, InnerLoop, Parameters
from monai_fewshot.networks.nets import MetaLearnedSegmenter

LR, PROXIMAL = 0.01, 2.0
CHANNELS, NARROW = (8, 16, 32, 64), (2, 4, 8, 16)
CHECKS = {torch.float64: (1e-6, False), torch.float32: (1e-5, True)}
"""Largest relative difference from the plain loop on small images, and whether with smooth activations."""
KINKED = (nn.ReLU, nn.PReLU)
SIZES = ((16, 1, NARROW), (16, 1, CHANNELS), (32, 1, CHANNELS), (32, 5, CHANNELS), (64, 5, CHANNELS))
"""Image size, shots (and queries) and channels at which vectorizing is compared besides."""


@dataclass(frozen=True)
class Setting:
    """A batch of tasks and what is done with it."""

    image_size: int
    shots: int
    queries: int
    tasks: int
    steps: int
    threads: int
    device: str
    repeats: int
    processor_time: bool = False
    channels: tuple[int, ...] = CHANNELS


class Problem:
    """Random tasks and a network with random weights."""

    def __init__(self, setting: Setting, dtype: torch.dtype = torch.float32, smooth: bool = False) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(setting.threads)
        base = AttentionUnet(2, 3, 1, setting.channels, (2,) * (len(setting.channels) - 1))
        for name in [name for name, module in base.named_modules() if smooth and isinstance(module, KINKED)]:
            base.set_submodule(name, nn.Softplus())
        self.setting = setting
        self.inner = InnerLoop(setting.steps, LR)
        self.network = MetaLearnedSegmenter(base, self.inner, DiceBCELoss()).train().to(setting.device, dtype)
        self.start = {name: p.detach() for name, p in self.network.start.items()}
        self.support, self.query = (self._images(n, dtype) for n in (setting.shots, setting.queries))

    def _images(self, number: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        size, tasks = self.setting.image_size, self.setting.tasks
        label = torch.zeros(tasks, number, 1, size, size, dtype=dtype)
        label[..., size // 4 : size // 2, size // 4 : -size // 4] = 1
        image = torch.rand(tasks, number, 3, size, size).to(dtype) + label / 2
        return image.to(self.setting.device), label.to(self.setting.device)

    def implicit(self) -> Parameters:
        """IMAML: five steps of conjugate gradients at most."""
        method = ImplicitMAML(replace(self.inner, proximal=PROXIMAL))
        return method(self.network.task_loss, self.start, self.support, self.query).parameters

    def vectorized(self, first_order: bool = False) -> Parameters:
        """MAML of all tasks at once."""
        method = MAML(self.inner, first_order=first_order)
        return method(self.network.task_loss, self.start, self.support, self.query).parameters

    def first_order(self) -> Parameters:
        """MAML without second derivatives."""
        return self.vectorized(True)

    def plain(self) -> Parameters:
        """MAML, one task after another."""
        base, loss = self.network.base, DiceBCELoss()
        total = [torch.zeros_like(p) for p in self.start.values()]
        for task in range(self.setting.tasks):
            leaves = {name: p.clone().requires_grad_() for name, p in self.start.items()}
            weights = leaves
            for _ in range(self.setting.steps):
                value = loss(functional_call(base, weights, (self.support[0][task],)), self.support[1][task])
                slopes = torch.autograd.grad(value, list(weights.values()), create_graph=True)
                weights = {name: w - LR * s for (name, w), s in zip(weights.items(), slopes, strict=True)}
            value = loss(functional_call(base, weights, (self.query[0][task],)), self.query[1][task])
            for part, gradient in zip(total, torch.autograd.grad(value, list(leaves.values())), strict=True):
                part += gradient / self.setting.tasks
        return dict(zip(self.start, total, strict=True))


VARIANTS: dict[str, Callable[[Problem], Parameters]] = {
    "implicit": Problem.implicit,
    "vectorized": Problem.vectorized,
    "first_order": Problem.first_order,
    "plain": Problem.plain,
}


def difference(ours: Parameters, plain: Parameters) -> float:
    """Norm of the difference to that of the plain gradient."""
    flat, reference = (torch.cat([p.flatten() for p in tree.values()]) for tree in (ours, plain))
    return float((flat - reference).norm() / reference.norm())


def check(setting: Setting) -> None:
    """Hold the vectorized meta-gradient to the plain loop's.

    Raises:
        RuntimeError: where they differ.
    """
    for dtype, (most, smooth) in CHECKS.items():
        problem = Problem(replace(setting, image_size=16), dtype, smooth)
        found = difference(problem.vectorized(), problem.plain())
        if not found <= most:
            raise RuntimeError(f"MAML differs from the plain loop by {found:.1e} of its norm in {dtype}: {setting}")


def timing_cell(setting: Setting, variants: Sequence[str] = tuple(VARIANTS)) -> dict[str, Any]:
    """Time variants in turns, in this process: seconds of the fastest turn, and the difference from the plain loop."""
    check(setting)
    problem = Problem(setting)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    found = {}

    def clock() -> float:
        return time.process_time() if setting.processor_time else synchronized(setting.device)

    for _ in range(setting.repeats):
        for name in variants:
            start = clock()
            found[name] = VARIANTS[name](problem)
            seconds[name].append(clock() - start)
    return {
        "seconds": {name: min(values) for name, values in seconds.items()},
        "difference": difference(found["vectorized"], found["plain"]),
    }


def memory_cell(setting: Setting, variant: str) -> int:
    """Peak of bytes in one meta-step, in this process."""
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            mallopt(option, 1 << 16)
    step = VARIANTS[variant]
    step(Problem(replace(setting, image_size=16, shots=1, queries=1, tasks=1, steps=1)))
    problem = Problem(setting)
    if torch.device(setting.device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(problem)
        return torch.cuda.max_memory_allocated() - before
    before = resident_memory(restart_peak=True)["VmRSS"]
    step(problem)
    return resident_memory()["VmHWM"] - before


def profile_cell(setting: Setting) -> dict[str, float]:
    """Share of convolutions in a meta-step's time, in this process."""
    problem = Problem(setting)
    activities, measure = {ProfilerActivity.CPU}, "self_cpu_time_total"
    if torch.device(setting.device).type == "cuda":
        activities, measure = activities | {ProfilerActivity.CUDA}, "self_device_time_total"
    found = {}
    for name in COMPARED:
        VARIANTS[name](problem)
        with profile(activities=activities) as profiler:
            VARIANTS[name](problem)
        times = [("conv" in event.key, getattr(event, measure)) for event in profiler.key_averages()]
        found[name] = sum(time for is_convolution, time in times if is_convolution) / sum(time for _, time in times)
    return found


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process, whose imports are done already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["throughput"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def measure_rows(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    rows = []
    for setting in settings:
        timed = in_own_process(timing_cell, setting)
        peaks = {name: in_own_process(memory_cell, setting, name) for name in VARIANTS}
        rows.append({"tasks": setting.tasks, "steps": setting.steps, "bytes": peaks, **timed})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def measure_sizes(setting: Setting) -> list[dict[str, Any]]:
    """Compare the vectorized with the plain way by size."""
    rows = []
    for size, shots, channels in SIZES:
        small = replace(
            setting,
            image_size=size,
            shots=shots,
            queries=shots,
            tasks=CLAIMED_TASKS,
            steps=FIXED_STEPS,
            channels=channels,
        )
        timed = in_own_process(timing_cell, small, COMPARED)
        shares = in_own_process(profile_cell, replace(small, steps=1))
        rows.append({"size": size, "shots": shots, "channels": channels, "convolutions": shares, **timed})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--queries", type=int, default=5)
    parser.add_argument("--inner_steps", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="with 4 tasks")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="with 4 inner steps")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each variant, the first to warm up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processor_time", action="store_true", help="time on the processor, for --threads 1")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--results", type=Path, help="Markdown file with the marker lines")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(words)
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ.update(KEEP_MEMORY, PYTHONPATH=os.pathsep.join(paths), PYTHONWARNINGS="ignore")
    named = ("image_size", "shots", "queries", "threads", "device", "repeats", "processor_time")
    setting = Setting(tasks=FIXED_TASKS, steps=FIXED_STEPS, **{name: getattr(arguments, name) for name in named})
    settings = [replace(setting, steps=n) for n in arguments.inner_steps]
    settings += [replace(setting, tasks=n) for n in arguments.tasks]
    text = report(vars(setting), measure_rows(list(dict.fromkeys(settings))), measure_sizes(setting))
    print(text)
    if arguments.results is not None:
        replace_between(arguments.results, "meta_steps", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
