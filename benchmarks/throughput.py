# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""How fast SSL-ALPNet trains, evaluates and labels on a device, beside the plain way, in one run.

    python benchmarks/throughput.py                            # phantom, quick sizes for a CPU, one and two threads
    python benchmarks/throughput.py --dataset_dir DATA --encoders unet resnet101 --image_size 256   # a GPU

Prints tables and writes throughput.json and throughput.png to --output_dir. Each precision and number of threads has
its rows. The plain way of training is that of plain_training.py, that of evaluation evaluation_speed.py's, both in
float32 as published. The plain labeling is one process, as in the notebook of the same authors; kinder than theirs, it
numbers superpixels without a loop over them. Every training cell runs in a process of its own, so that its peak of
memory is its own (on a CPU: resident memory beyond what the process had before its first step). The methods for images
train on phantoms of their own (image_throughput.py).

"30 % at 60 %" is a part's share of a step, and the share of the peak of arithmetic that it reaches meanwhile, counting
convolutions and matrix products alone. The peak is that of a large matrix product or convolution, whichever is faster.
The network's part has the encoder and its gradients, the heads' all up to the loss and the gradients of the features,
both measured without ``torch.compile``. What is left is the optimizer's.
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
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from evaluation_speed import ENCODERS, PROTOCOL, load_episodes, make_network, run_plain, spread
from image_throughput import image_method_cell, phantom_methods
from monai.data import DataLoader, Dataset
from monai.inferers import SimpleInferer
from monai.transforms import Compose, LoadImaged, NormalizeIntensityd
from plain_training import PREFETCHED, PlainEpisodes, plain_loss
from step_timing import WARM_UP, encoder_seconds, median_seconds, timed_steps
from throughput_report import draw, report
from torch.utils.flop_counter import FlopCounterMode

from monai_fewshot.apps.phantom import make_phantom_dataset
from monai_fewshot.data import PseudoLabelEpisodes, SliceStack, load_class_names, load_folds, load_scans, read_scans
from monai_fewshot.engines import PrepareBatchEpisode
from monai_fewshot.inferers import AutocastInferer, FewShotVolumeInferer
from monai_fewshot.losses import EpisodeLoss
from monai_fewshot.networks import prepare_network
from monai_fewshot.networks.nets import ALPNet
from monai_fewshot.transforms import EpisodeAugmentation, RandAffineElastic, SuperpixelLabelsd
from monai_fewshot.utils import default_dtype

BACKGROUND_WEIGHT = 0.1
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
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], help="default: those of the device")
    parser.add_argument("--channels_last", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output_dir", type=Path, default=Path("throughput_output"))
    return parser.parse_args()


def resident_memory(restart_peak: bool = False) -> dict[str, int]:
    """Bytes of this process now (VmRSS) and at most (VmHWM), as Linux counts them."""
    if restart_peak:
        Path("/proc/self/clear_refs").write_text("5")
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in lines if words[0] in ("VmRSS:", "VmHWM:")}


def peak_arithmetic(device: str, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product or convolution, whichever is faster."""
    n, images = (8192, 64) if torch.device(device).type == "cuda" else (1536, 8)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    image = torch.randn(images, 256, 32, 32, device=device, dtype=dtype)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=dtype)
    product_s = median_seconds(lambda: a @ b, device, 5)
    convolution_s = median_seconds(lambda: F.conv2d(image, weight, padding=1), device, 5)
    return max(2 * n**3 / product_s, 2 * image.numel() * 9 * 256 / convolution_s)


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

    def loss(batch: Any, call: Callable[..., Any]) -> torch.Tensor:
        image, target, support, _ = batch
        optimizer.zero_grad(set_to_none=True)
        return loss_function(inferer(image, call, *support), target)

    def step(batch: Any) -> None:
        loss(batch, network).backward()
        optimizer.step()

    before = resident_memory(restart_peak=True)["VmRSS"]
    eager = partial(ALPNet.forward, network)
    try:
        timed = timed_steps(lambda: prepare(next(batches), device), step, steps, device, batch_size)
        memory = max(0, resident_memory()["VmHWM"] - before)
        if torch.device(device).type == "cuda":
            memory = torch.cuda.max_memory_allocated()
        with FlopCounterMode(display=False) as making:
            batch = prepare(next(batches), device)
        with FlopCounterMode(display=False) as counter:
            loss(batch, eager).backward()
        seconds = encoder_seconds(lambda: loss(batch, eager), network.encoder, device, steps)
    except torch.OutOfMemoryError:
        return {"encoder": encoder, "batch_size": batch_size, "error": "out of memory"}
    inside = sum(counter.get_flop_counts()[type(network.encoder).__name__].values())
    return {
        "encoder": encoder,
        "batch_size": batch_size,
        "image_size": stack.image.shape[-1],
        **timed,
        "peak_bytes": memory,
        "parts": {
            "network": {"seconds": seconds[0], "operations": inside},
            "heads": {"seconds": seconds[1], "operations": counter.get_total_flops() - inside},
            "making": {"seconds": timed["making_share"] * timed["step_s"], "operations": making.get_total_flops()},
        },
    }


def plain_training_cell(settings: dict[str, Any], stack: SliceStack, encoder: str) -> dict[str, Any]:
    """Time the plain way."""
    torch.set_num_threads(settings["threads"])
    device, steps = settings["device"], 2 * settings["steps"]
    torch.manual_seed(0)
    network = ENCODERS[encoder]().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    images, labels = stack.image.float().cpu().numpy()[:, 0], stack.label.cpu().numpy()[:, 0]
    episodes = iter(PlainEpisodes(images, labels, steps + WARM_UP + PREFETCHED).loader(device))

    def make() -> list[torch.Tensor]:
        return [x.to(device) for x in next(episodes)]

    def step(episode: list[torch.Tensor]) -> None:
        optimizer.zero_grad()
        loss, _ = plain_loss(network, episode, 8 if encoder == "unet" else 4, BACKGROUND_WEIGHT)
        loss.backward()
        optimizer.step()
        loss.item()

    return {"encoder": encoder, **timed_steps(make, step, steps, device, 1)}


def in_own_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def plain_evaluation(settings: dict[str, Any], episode: dict[str, Any], network: ALPNet) -> float:
    """Seconds that the plain way takes for all slices of a query scan."""
    depth = episode["image"].shape[-1]
    slices = spread(depth, settings["plain_slices"])
    plain = run_plain(episode, network, (settings["evaluation_size"],) * 2, slices, settings["device"])
    return float(plain.seconds[0].sum()) * depth / len(slices)


def evaluation(settings: dict[str, Any], episode: dict[str, Any], network: ALPNet, classes: int) -> dict[str, Any]:
    """Time a query scan under the protocol ``alpnet``, and by classes asked and slices scored."""
    device, size = settings["device"], (settings["evaluation_size"],) * 2
    query, label = (episode[key][None].to(device) for key in ("image", "label"))
    support = [episode[f"support_{key}"][None].to(device) for key in ("image", "label")]
    dtype, batch = getattr(torch, settings["dtype"]), 16 if torch.device(device).type == "cuda" else 2
    depth = query.shape[-1]

    def seconds(asked: int, number: int) -> float:
        """Segment every one of some slices around the organs."""
        middle = int((label[0, 0] > 0).flatten(0, 1).any(0).nonzero().float().mean())
        first = max(0, min(middle - number // 2, depth - number))
        inferer = FewShotVolumeInferer("adnet_ep2", asked, size, batch, dtype=dtype)
        window, shown = query[..., first : first + number], support[1] * (support[1] <= asked)
        return median_seconds(lambda: inferer(window, network, support[0], shown), device, 1, warm_up=0)

    def segment() -> torch.Tensor:
        # An inferer that has seen the support would not encode it again.
        inferer = FewShotVolumeInferer(PROTOCOL, classes, size, batch, dtype=dtype)
        return inferer(query, network, *support, label)

    return {
        "slices": depth,
        "seconds": median_seconds(segment, device, 1),
        "by_classes": {n: seconds(n, depth) for n in sorted({1, (classes + 1) // 2, classes})},
        "by_slices": {n: seconds(classes, n) for n in sorted({depth // 4, depth // 2, depth})},
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


def main() -> None:
    arguments = parse_arguments()
    device = arguments.device
    on_gpu = torch.device(device).type == "cuda"
    settings = {key: value for key, value in vars(arguments).items() if not isinstance(value, Path)}
    settings["batch_sizes"] = arguments.batch_sizes or (GPU_BATCHES if on_gpu else CPU_BATCHES)
    dtypes = arguments.dtypes or list(dict.fromkeys(["float32", str(default_dtype(device)).removeprefix("torch.")]))
    with tempfile.TemporaryDirectory() as folder:
        dataset_dir = arguments.dataset_dir or Path(folder) / "phantom"
        if arguments.dataset_dir is None:
            make_phantom_dataset(dataset_dir, 5)
        sizes = [arguments.image_size // 2, arguments.image_size, arguments.image_size * 2]
        stacks = [slice_stack(dataset_dir, arguments.fold, arguments.scans, size, "cpu") for size in sizes]
        episode = load_episodes(dataset_dir, arguments.fold, 1)[0][0]
        network = make_network(arguments.evaluation_encoder, episode, (arguments.evaluation_size,) * 2, device)
        classes, methods = len(load_class_names(dataset_dir)), phantom_methods(Path(folder) / "images")
        runs = []
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            settings["threads"] = threads
            plain = {
                "training": {
                    e: in_own_process(plain_training_cell, settings, stacks[1], e) for e in arguments.encoders
                },
                "evaluation_s": plain_evaluation(settings, episode, network),
                "image_methods": {
                    m.bundle: in_own_process(image_method_cell, settings, m, True) for m in methods if m.published
                },
            }
            for dtype in dtypes:
                settings["dtype"] = dtype
                cells = product(arguments.encoders, settings["batch_sizes"])
                runs.append(
                    {
                        "threads": threads,
                        "dtype": dtype,
                        "peak_operations_per_s": peak_arithmetic(device, getattr(torch, dtype)),
                        "training": [in_own_process(training_cell, settings, stacks[1], *cell) for cell in cells],
                        "evaluation": evaluation(settings, episode, network, classes),
                        "image_methods": {
                            m.bundle: in_own_process(image_method_cell, settings, m, False) for m in methods
                        },
                        "plain": plain,
                    }
                )
                print(runs[-1], flush=True)
        sized = [(scaled, arguments.encoders[0], 16 if on_gpu else 2) for scaled in stacks]
        result = {
            "hardware": torch.cuda.get_device_name() if on_gpu else platform.machine(),
            "torch": torch.__version__,
            "settings": settings,
            "runs": runs,
            "by_image_size": [in_own_process(training_cell, settings, *cell) for cell in sized],
            "labeling": labeling(dataset_dir, arguments.fold, arguments.scans),
        }
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    (arguments.output_dir / "throughput.json").write_text(json.dumps(result, indent=2) + "\n")
    draw(result, arguments.output_dir / "throughput.png")
    print(report(result))


if __name__ == "__main__":
    main()
