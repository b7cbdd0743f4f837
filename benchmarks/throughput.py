# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""How fast SSL-ALPNet trains, evaluates and labels on a device, beside the plain way, in one run.

    python benchmarks/throughput.py                            # phantom, quick sizes for a CPU
    python benchmarks/throughput.py --dataset_dir DATA --encoders unet resnet101 --image_size 256   # a GPU

Prints tables and writes throughput.json and throughput.png to --output_dir. The plain way of training is that of
plain_training.py, one episode at a time with transforms on the CPU; that of evaluation encodes support and query anew
for every slice and class (evaluation_speed.py). Every training cell runs in a process of its own, so that its peak of
memory is its own (on a CPU: resident memory beyond what the process had before its first step). The methods for images
train on phantoms of their own (image_throughput.py).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation_speed import ENCODERS, load_episodes, make_network, run_plain, spread
from image_throughput import image_method_cell, phantom_methods
from monai.data import DataLoader, Dataset
from monai.inferers import SimpleInferer
from monai.transforms import Compose, LoadImaged, NormalizeIntensityd
from plain_training import plain_episode, plain_loss
from step_timing import WARM_UP, median_seconds, timed_steps
from throughput_report import draw, report
from torch.utils.flop_counter import FlopCounterMode

from monai_fewshot.apps.phantom import make_phantom_dataset
from monai_fewshot.data import PseudoLabelEpisodes, SliceStack, load_class_names, load_folds, load_scans, read_scans
from monai_fewshot.engines import PrepareBatchEpisode
from monai_fewshot.inferers import AutocastInferer, FewShotVolumeInferer, get_protocol
from monai_fewshot.losses import EpisodeLoss
from monai_fewshot.networks import prepare_network
from monai_fewshot.networks.nets import ALPNet
from monai_fewshot.transforms import EpisodeAugmentation, RandAffineElastic, SuperpixelLabelsd
from monai_fewshot.utils import default_dtype

BACKGROUND_WEIGHT = 0.1
METHOD_BATCH = 8
GPU_BATCHES, CPU_BATCHES = [1, 2, 4, 8, 16, 32, 64], [1, 4, 8]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, help="data set in the Decathlon layout; default: a new phantom")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=["unet"], help="of training")
    parser.add_argument("--batch_sizes", type=int, nargs="+", help="default: 1 to 64 on a GPU, 1, 4 and 8 on a CPU")
    parser.add_argument("--image_size", type=int, default=128, help="of training")
    parser.add_argument("--evaluation_encoder", choices=ENCODERS, default="resnet101")
    parser.add_argument("--evaluation_size", type=int, default=256)
    parser.add_argument("--method_size", type=int, default=128, help="of training the methods for images")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a cell, after two to warm up")
    parser.add_argument("--plain_slices", type=int, default=2, help="slices that the plain evaluation is timed on")
    parser.add_argument("--scans", type=int, default=2, help="scans that are labeled")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: what suits the device")
    parser.add_argument("--channels_last", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output_dir", type=Path, default=Path("throughput_output"))
    return parser.parse_args()


def resident_memory(restart_peak: bool = False) -> dict[str, int]:
    """Bytes of this process now (VmRSS) and at most (VmHWM), as Linux counts them."""
    if restart_peak:
        Path("/proc/self/clear_refs").write_text("5")
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in lines if words[0] in ("VmRSS:", "VmHWM:")}


def peak_arithmetic(device: str, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product."""
    n = 8192 if torch.device(device).type == "cuda" else 1536
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / median_seconds(lambda: a @ b, device, 5)


def training_scans(dataset_dir: Path, fold: int) -> list[dict[str, Any]]:
    names = set(load_folds(dataset_dir)[fold].train)
    return [scan for scan in load_scans(dataset_dir) if scan["name"] in names]


def slice_stack(dataset_dir: Path, fold: int, scans: int, size: int, device: str) -> SliceStack:
    load = LoadImaged("image", image_only=True, ensure_channel_first=True)
    transform = Compose([load, SuperpixelLabelsd("image"), NormalizeIntensityd("image")])
    data = Dataset(training_scans(dataset_dir, fold)[:scans], transform)
    return SliceStack.from_scans(data, image_size=(size, size), device=device)


def training_cell(settings: dict[str, Any], stack: SliceStack, encoder: str, batch_size: int) -> dict[str, Any]:
    """Time training steps with one encoder and batch size, in this process."""
    torch.set_num_threads(settings["threads"])
    device, dtype = settings["device"], getattr(torch, settings["dtype"])
    torch.manual_seed(0)
    network = ALPNet(2, ENCODERS[encoder](), train_window=8 if encoder == "unet" else 4)
    network = prepare_network(network, device, settings["channels_last"], settings["compile"])
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    loss_function, inferer = EpisodeLoss(BACKGROUND_WEIGHT), AutocastInferer(SimpleInferer(), dtype)
    steps = settings["steps"]
    placed = SliceStack(stack.image.to(device), stack.label.to(device), stack.scan)
    episodes = PseudoLabelEpisodes(
        placed, (steps + WARM_UP + 1) * batch_size, augmentation=EpisodeAugmentation(RandAffineElastic())
    )
    batches = iter(DataLoader(episodes, batch_size=batch_size))
    prepare = PrepareBatchEpisode()

    def step(batch: Any) -> None:
        image, target, support, _ = batch
        optimizer.zero_grad(set_to_none=True)
        loss_function(inferer(image, network, *support), target).backward()
        optimizer.step()

    before = resident_memory(restart_peak=True)["VmRSS"]
    try:
        timed = timed_steps(lambda: prepare(next(batches), device), step, steps, device, batch_size)
        memory = max(0, resident_memory()["VmHWM"] - before)
        if torch.device(device).type == "cuda":
            memory = torch.cuda.max_memory_allocated()
        with FlopCounterMode(display=False) as counter:
            inputs, targets, support, _ = prepare(next(batches), device)
            loss_function(ALPNet.forward(network, inputs, *support), targets).backward()
    except torch.OutOfMemoryError:
        return {"encoder": encoder, "batch_size": batch_size, "error": "out of memory"}
    return {
        "encoder": encoder,
        "batch_size": batch_size,
        "image_size": stack.image.shape[-1],
        **timed,
        "peak_bytes": memory,
        "operations_per_s": counter.get_total_flops() / timed["step_s"],
    }


def plain_training_cell(settings: dict[str, Any], stack: SliceStack, encoder: str) -> dict[str, Any]:
    """Time the plain way, one episode at a time."""
    torch.set_num_threads(settings["threads"])
    device = settings["device"]
    torch.manual_seed(0)
    network = ENCODERS[encoder]().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    images, labels = stack.image.float().cpu().numpy()[:, 0], stack.label.cpu().numpy()[:, 0]
    drawable = np.flatnonzero(labels.any((1, 2)))
    random = np.random.RandomState(0)

    def make() -> list[torch.Tensor]:
        chosen = random.choice(drawable)
        return [x.to(device) for x in plain_episode(images[chosen], labels[chosen], random)]

    def step(episode: list[torch.Tensor]) -> None:
        optimizer.zero_grad()
        plain_loss(network, episode, 8 if encoder == "unet" else 4, BACKGROUND_WEIGHT)[0].backward()
        optimizer.step()

    return {"encoder": encoder, **timed_steps(make, step, 2 * settings["steps"], device, 1)}


def in_own_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def evaluation(settings: dict[str, Any], dataset_dir: Path, fold: int, plain_slices: int) -> dict[str, Any]:
    """Time one query scan under the protocol ``alpnet``, by classes asked and slices scored, and the plain way."""
    device, size = settings["device"], (settings["evaluation_size"],) * 2
    episode = load_episodes(dataset_dir, fold, 1)[0][0]
    network = make_network(settings["evaluation_encoder"], episode, size, device)
    query, label = (episode[key][None].to(device) for key in ("image", "label"))
    support = [episode[f"support_{key}"][None].to(device) for key in ("image", "label")]
    names = len(load_class_names(dataset_dir))
    dtype, batch = getattr(torch, settings["dtype"]), 16 if torch.device(device).type == "cuda" else 2
    protocol = get_protocol("alpnet")

    def seconds(classes: int, depth: int) -> float:
        """Segment every one of ``depth`` slices around the organs."""
        middle = int((label[0, 0] > 0).flatten(0, 1).any(0).nonzero().float().mean())
        first = max(0, min(middle - depth // 2, query.shape[-1] - depth))
        inferer = FewShotVolumeInferer("adnet_ep2", classes, size, batch, dtype=dtype)
        asked = support[1] * (support[1] <= classes)
        window = query[..., first : first + depth]
        return median_seconds(lambda: inferer(window, network, support[0], asked), device, 1, warm_up=0)

    depth = query.shape[-1]
    by_classes = {n: seconds(n, depth) for n in sorted({1, (names + 1) // 2, names})}
    by_slices = {n: seconds(names, n) for n in sorted({depth // 4, depth // 2, depth})}
    inferer = FewShotVolumeInferer(protocol, names, size, batch, dtype=dtype)
    ours = median_seconds(lambda: inferer(query, network, *support, label), device, 1)
    plain = run_plain(protocol, episode, network, size, spread(depth, plain_slices), device)
    plain_s = float(plain.seconds[0].sum()) * depth / plain_slices
    return {
        "slices": depth,
        "classes": names,
        "seconds": ours,
        "plain_seconds": plain_s,
        "slices_per_s": depth / ours,
        "by_classes": by_classes,
        "by_slices": by_slices,
    }


def labeling(dataset_dir: Path, fold: int, scans: int) -> dict[str, Any]:
    load = LoadImaged("image", image_only=True, ensure_channel_first=True)
    data = Dataset(training_scans(dataset_dir, fold)[:scans], Compose([load, SuperpixelLabelsd("image")]))
    rates = {}
    for name, workers in (("plain", 0), ("ours", None)):
        start = time.perf_counter()
        slices = sum(scan["image"].shape[-1] for scan in read_scans(data, workers, description=f"labeling, {name}"))
        rates[f"{name}_slices_per_s"] = slices / (time.perf_counter() - start)
    return rates


def image_methods(settings: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    return [
        {
            "method": method.bundle,
            "batch_size": METHOD_BATCH,
            "image_size": settings["method_size"],
            "ours": in_own_process(image_method_cell, settings, method, METHOD_BATCH, False),
            "plain": in_own_process(image_method_cell, settings, method, 1, True),
        }
        for method in phantom_methods(folder)
    ]


def main() -> None:
    arguments = parse_arguments()
    on_gpu = torch.device(arguments.device).type == "cuda"
    torch.set_num_threads(arguments.threads)
    settings = {**vars(arguments), "dtype": arguments.dtype or str(default_dtype(arguments.device)).split(".")[1]}
    settings = {key: value for key, value in settings.items() if not isinstance(value, Path)}
    hardware = torch.cuda.get_device_name() if on_gpu else f"{platform.machine()}, {arguments.threads} thread(s)"
    with tempfile.TemporaryDirectory() as folder:
        dataset_dir = arguments.dataset_dir or Path(folder) / "phantom"
        if arguments.dataset_dir is None:
            make_phantom_dataset(dataset_dir, 5)
        stack = slice_stack(dataset_dir, arguments.fold, arguments.scans, arguments.image_size, "cpu")
        result: dict[str, Any] = {
            "hardware": hardware,
            "torch": torch.__version__,
            "settings": settings,
            "peak_operations_per_s": peak_arithmetic(arguments.device, getattr(torch, settings["dtype"])),
            "plain_training": [in_own_process(plain_training_cell, settings, stack, e) for e in arguments.encoders],
            "training": [],
        }
        for encoder in arguments.encoders:
            for batch_size in arguments.batch_sizes or (GPU_BATCHES if on_gpu else CPU_BATCHES):
                result["training"].append(in_own_process(training_cell, settings, stack, encoder, batch_size))
                print(result["training"][-1], flush=True)
        result["by_image_size"] = []
        for size in (arguments.image_size // 2, arguments.image_size, arguments.image_size * 2):
            scaled = slice_stack(dataset_dir, arguments.fold, 1, size, "cpu")
            result["by_image_size"].append(
                in_own_process(training_cell, settings, scaled, arguments.encoders[0], 16 if on_gpu else 2)
            )
        result["evaluation"] = evaluation(settings, dataset_dir, arguments.fold, arguments.plain_slices)
        result["labeling"] = labeling(dataset_dir, arguments.fold, arguments.scans)
        result["image_methods"] = image_methods(settings, Path(folder) / "images")
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    (arguments.output_dir / "throughput.json").write_text(json.dumps(result, indent=2) + "\n")
    draw(result, arguments.output_dir / "throughput.png")
    print(report(result))


if __name__ == "__main__":
    main()
