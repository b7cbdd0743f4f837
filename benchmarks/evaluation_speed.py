# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Time the evaluation of a fold against encoding support and query anew for every query slice and class.

    python benchmarks/evaluation_speed.py                                       # phantom, ResNet-101, 256 px
    python benchmarks/evaluation_speed.py --dataset_dir DIR --fold 0 --scans 4  # a whole fold of four queries

Both ways run in this process in float32, with the same random weights, under the protocol ``alpnet``, on the same
scans; their label maps are compared. Processor time stands beside elapsed time, for machines that do other work
meanwhile.

The plain way is that of validation.py by the authors of SSL-ALPNet (see plain_training.py). Alike: one class after
another, it goes through all slices of a query without gradients, one at a time, whether the protocol scores them or
not; the support slice of its chunk and the query slice pass the encoder as a batch of two; one convolution scores all
prototypes of a class. Its time for the scored slices alone is given too. Kinder than the original: slices are resized
beforehand, no loader process sends them, and no mask is written.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.transforms import Compose, LoadImaged, NormalizeIntensityd
from plain_training import plain_resize, plain_segmentation
from torch import nn

from monai_fewshot.apps.phantom import make_phantom_dataset
from monai_fewshot.data import ScanEpisodes, load_class_names, load_folds, load_scans
from monai_fewshot.inferers import FewShotVolumeInferer, get_protocol
from monai_fewshot.inferers.support_choice import ScanPairing, choose_chunks
from monai_fewshot.inferers.support_encoding import SupportScan, chunk_shots
from monai_fewshot.networks.encoders import DilatedResNetEncoder, UNetEncoder, VGG16Encoder
from monai_fewshot.networks.nets import ALPNet
from monai_fewshot.utils import pixels_per_slice, resize_slices

ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "resnet101": lambda: DilatedResNetEncoder(101),
    "resnet50": lambda: DilatedResNetEncoder(50),
    "resnet18": lambda: DilatedResNetEncoder(18),
    "vgg16": VGG16Encoder,
    "unet": lambda: UNetEncoder(spatial_dims=2, in_channels=1),
}
ROUNDING = 1e-3
CLOCKS = ("elapsed_s", "processor_s")
PROTOCOL = get_protocol("alpnet")


class PlainResult(NamedTuple):
    """Margins (N, H, W, D), elapsed and processor seconds (2, N, D) of each slice, and which are scored (N, D)."""

    margins: torch.Tensor
    seconds: np.ndarray
    scored: np.ndarray


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, help="data set in the Decathlon layout; default: a new phantom")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--scans", type=int, default=1, help="number of the fold's query scans to evaluate")
    parser.add_argument("--encoder", choices=ENCODERS, default="resnet101")
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--batch_size", type=int, help="default: 16 on a GPU, 4 on a CPU, where more is slower")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--plain_slices", type=int, help="time the plain way on so many slices a scan and extrapolate")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    return parser.parse_args()


def load_episodes(dataset_dir: Path, fold_index: int, num_scans: int) -> tuple[list[dict[str, Any]], list[str]]:
    fold = load_folds(dataset_dir)[fold_index]
    scans = {scan["name"]: scan for scan in load_scans(dataset_dir, require_labels=True)}
    keys = ["image", "label"]
    transform = Compose([LoadImaged(keys, image_only=True, ensure_channel_first=True), NormalizeIntensityd("image")])
    queries = [scans[name] for name in fold.query[:num_scans]]
    episodes = ScanEpisodes(queries, [scans[name] for name in fold.support], transform)
    return [episodes[index] for index in range(len(queries))], [scan["name"] for scan in queries]


@torch.no_grad()
def make_network(encoder: str, episode: dict[str, Any], size: tuple[int, int], device: str) -> ALPNet:
    """Make a network with random weights whose normalization layers know the statistics of a few slices."""
    torch.manual_seed(0)
    network = ALPNet(2, ENCODERS[encoder]()).to(device)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    slices = episode["support_image"][0].permute(3, 0, 1, 2)[::4]
    network.train()
    network.encode_query(resize_slices(slices, size).to(device))
    return network.eval()


def support_scan(episode: dict[str, Any], num_classes: int, device: str) -> SupportScan:
    image, label = episode["support_image"][0], episode["support_label"][0]
    pixels = pixels_per_slice(label, num_classes)
    return SupportScan(image.to(device), label[0].to(device).long(), pixels)


@torch.no_grad()
def run_plain(
    episode: dict[str, Any], network: ALPNet, size: tuple[int, int], slices: np.ndarray, device: str
) -> PlainResult:
    """Encode the support and the query anew for every slice and class."""
    image, label = (episode[key].as_tensor().to(device) for key in ("image", "label"))
    num_classes = int(label.max())
    support = support_scan(episode, num_classes, device)
    scored, chunks = choose_chunks(PROTOCOL, ScanPairing(pixels_per_slice(label, num_classes), [support.pixels], list))
    chunks = chunks[..., 0]
    shots = chunk_shots(PROTOCOL, [support])
    queries, support_images = (resize_slices(x.permute(3, 0, 1, 2), size) for x in (image, support.image))
    support_labels = resize_slices(support.label.permute(2, 0, 1)[:, None], size, mode="nearest")
    margins = torch.zeros(num_classes, *image.shape[1:], device=device)
    seconds = np.zeros((2, *chunks.shape))
    for index in range(num_classes):
        for z in slices:
            started = clock(device)
            ((_, place),) = shots[index][chunks[index, z]]
            mask = support_labels[place, None] == index + 1
            pair = queries[z, None], support_images[place, None]
            logits = plain_resize(
                plain_segmentation(network.encoder, *pair, mask, network.eval_window)[0], image.shape[1:3]
            )[0]
            margins[index, ..., z] = logits[1] - logits[0]
            seconds[:, index, z] = clock(device) - started
    return PlainResult(margins, seconds, scored)


def clock(device: str) -> np.ndarray:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def compare(ours: torch.Tensor, plain: PlainResult, slices: np.ndarray) -> dict[str, int]:
    """Count the pixels of the label maps that differ, and those that differ by more than rounding."""
    scored = torch.from_numpy(plain.scored[:, slices]).to(ours.device)[:, None, None]
    expected, found = plain.margins[..., slices], ours[0, 1:, ..., slices]
    differ = ((expected > 0) != (found > 0)) & scored
    wrong = differ & ((expected.abs() > ROUNDING) | (found.abs() > ROUNDING))
    foreground = int(((expected > 0) & scored).sum())
    compared = int(scored.sum()) * expected.shape[1] * expected.shape[2]
    return {
        "compared": compared,
        "foreground": foreground,
        "differ": int(differ.sum()),
        "differ_beyond_rounding": int(wrong.sum()),
    }


def run(arguments: argparse.Namespace, dataset_dir: Path) -> dict[str, Any]:
    size, device = (arguments.image_size,) * 2, arguments.device
    episodes, names = load_episodes(dataset_dir, arguments.fold, arguments.scans)
    num_classes = len(load_class_names(dataset_dir))
    network = make_network(arguments.encoder, episodes[0], size, device)
    batch_size = arguments.batch_size or (4 if torch.device(device).type == "cpu" else 16)
    inferer = FewShotVolumeInferer(PROTOCOL, num_classes, size, batch_size)
    ours_s, plain_s, plain_scored_s = np.zeros((3, 2))
    counts: Counter[str] = Counter()
    for episode in episodes:
        query, label = (episode[key][None].to(device) for key in ("image", "label"))
        support_image, support_label = (episode[f"support_{key}"][None].to(device) for key in ("image", "label"))
        started = clock(device)
        ours = inferer(query, network, support_image, support_label, label)
        ours_s += clock(device) - started
        depth = query.shape[-1]
        slices = np.arange(depth) if arguments.plain_slices is None else spread(depth, arguments.plain_slices)
        plain = run_plain(episode, network, size, slices, device)
        plain_s += plain.seconds.sum((1, 2)) * depth / len(slices)
        plain_scored_s += plain.seconds[..., slices].mean((1, 2)) * plain.scored.sum()
        counts.update(compare(ours.as_tensor(), plain, slices))
    times = {"ours": ours_s, "plain": plain_s, "plain_scored": plain_scored_s}
    timed = {f"{name}_{kind}": value for name, both in times.items() for kind, value in zip(CLOCKS, both, strict=True)}
    return {
        "scans": names,
        "classes": num_classes,
        "encoder": arguments.encoder,
        "image_size": arguments.image_size,
        "batch_size": batch_size,
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "plain_slices_a_scan": arguments.plain_slices,
        **timed,
        **counts,
    }


def spread(depth: int, number: int) -> np.ndarray:
    return np.unique(np.linspace(0, depth - 1, min(number, depth)).round().astype(int))


def show(result: dict[str, Any]) -> None:
    print(
        f"{len(result['scans'])} scan(s), {result['classes']} classes, {result['encoder']}, {result['image_size']} px, "
        f"{result['device']}, {result['threads']} thread(s), batches of {result['batch_size']}"
    )
    if result["plain_slices_a_scan"] is not None:
        print(f"EXTRAPOLATED: the plain way was timed on {result['plain_slices_a_scan']} slices a scan.")
    print(f"{'':31}{'ours':>9}{'plain, every slice':>21}{'ratio':>8}{'plain, scored slices':>23}{'ratio':>8}")
    for kind in CLOCKS:
        ours, plain, scored = (result[f"{name}_{kind}"] for name in ("ours", "plain", "plain_scored"))
        ratios = plain / ours, scored / ours
        print(f"{kind.replace('_', ' '):31}{ours:9.1f}{plain:21.1f}{ratios[0]:7.1f}x{scored:23.1f}{ratios[1]:7.1f}x")
    print(
        f"  label maps: {result['compared']} pixels compared, {result['foreground']} of them foreground, "
        f"{result['differ']} differ, {result['differ_beyond_rounding']} by more than rounding"
    )


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        dataset_dir = arguments.dataset_dir
        if dataset_dir is None:
            dataset_dir = Path(folder) / "phantom"
            make_phantom_dataset(dataset_dir, 5)
        result = run(arguments, dataset_dir)
    show(result)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    if result["differ_beyond_rounding"]:
        raise SystemExit("The label maps differ by more than rounding.")


if __name__ == "__main__":
    main()
