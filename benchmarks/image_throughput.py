# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""How fast the methods for color images train, beside the plain way of MaskSplit; for throughput.py.

Networks, losses and transforms are those of the bundles' configs/train.json.

The plain way is that of src/dataset/dataset.py and src/lightning_models/simpleNetwork.py of MaskSplit's authors,
https://github.com/AhmetSencan/MaskSplit-Self-supervised-Meta-learning-for-Few-shot-Semantic-Segmentation. Alike: four
loader processes split one mask at a time and transform the image with either half; the network is trained on batches
of episodes in float32. Kinder than the original: images lie decoded in memory, and support and query pass the encoder
as one batch. Harsher: the transforms of single images are this package's, the original's albumentations'.

We found no code of the method with surrogate tasks; it is compared with nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import NormalizeIntensity
from plain_training import LOADER_PROCESSES, PREFETCHED
from step_timing import WARM_UP, timed_steps
from torch.utils.data import DataLoader, Dataset

from monai_fewshot.apps.bundles import bundle_folder
from monai_fewshot.apps.phantom import make_phantom_lesions, make_phantom_shapes
from monai_fewshot.data import MaskSplitEpisodes
from monai_fewshot.engines import PrepareBatchEpisode
from monai_fewshot.transforms import NormalizeChannels
from monai_fewshot.utils import EpisodeKeys
from monai_fewshot.workflows import episode_loader

METHOD_BATCH = 8


class ImageMethod(NamedTuple):
    """A bundle, the entries of its configuration that name the data, and whether its authors published code."""

    bundle: str
    data: dict[str, str]
    published: bool


def phantom_methods(folder: Path, num_images: int = 20) -> list[ImageMethod]:
    """Draw a phantom for each method: lesions with masks, and classes of shapes with five images each."""
    lesions = make_phantom_lesions(folder / "lesions", num_images)
    shapes = make_phantom_shapes(folder / "shapes", num_images // 5, 5)
    return [
        ImageMethod("masksplit", {"dataset_dir": str(lesions), "masks_dir": str(lesions / "masks")}, True),
        ImageMethod("surrogate_fewshot", {"dataset_dir": str(shapes)}, False),
    ]


def configuration(settings: dict[str, Any], method: ImageMethod, plain: bool) -> ConfigParser:
    """Read the training of a bundle."""
    parser = ConfigParser()
    parser.read_config(bundle_folder(method.bundle) / "configs" / "train.json")
    changed: dict[str, Any] = {
        **method.data,
        "image_size": [settings["method_size"]] * 2,
        "batch_size": METHOD_BATCH,
        "epoch_length": settings["steps"] + WARM_UP + PREFETCHED,
        "device": settings["device"],
        "dtype": "$torch.float32" if plain else f"$torch.{settings['dtype']}",
        "channels_last": False if plain else settings["channels_last"],
        "compile": False if plain else settings["compile"],
    }
    parser.update(changed)
    return parser


def image_method_cell(settings: dict[str, Any], method: ImageMethod, plain: bool) -> dict[str, float]:
    """Time the training steps of a method, in this process."""
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    device, prepare = settings["device"], PrepareBatchEpisode()
    parser = configuration(settings, method, plain)
    network, optimizer, loss, inferer, dataset = (
        parser.get_parsed_content(key) for key in ("network", "optimizer", "loss", "train#inferer", "train#dataset")
    )
    loader = episode_loader(dataset, METHOD_BATCH)
    if plain:
        stack = dataset.stack
        dataset.stack = replace(stack, image=stack.image.cpu(), label=stack.label.cpu())
        pinned = torch.device(device).type == "cuda"
        loader = DataLoader(PlainMaskSplit(dataset), METHOD_BATCH, num_workers=LOADER_PROCESSES, pin_memory=pinned)
    network.train()
    batches = iter(loader)

    def step(batch: Any) -> None:
        image, target, inputs, _ = batch
        optimizer.zero_grad(set_to_none=True)
        loss(inferer(image, network, *inputs), target).backward()
        optimizer.step()

    return timed_steps(lambda: prepare(next(batches), device), step, settings["steps"], device, METHOD_BATCH)


@dataclass
class PlainMaskSplit(Dataset):
    """Episodes made image by image."""

    dataset: MaskSplitEpisodes

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return plain_mask_split(self.dataset, np.random.RandomState(index))


def plain_mask_split(dataset: MaskSplitEpisodes, random: np.random.RandomState) -> dict[str, torch.Tensor]:
    """Split a mask, and transform the image with either half."""
    place, values = dataset.choices[random.randint(len(dataset.choices))]
    mask = dataset.stack.label[place] == values[random.randint(len(values))]
    dataset.split.set_random_state(state=random)
    assert dataset.augmentation is not None
    geometry, color = dataset.augmentation.geometry, dataset.augmentation.color
    assert geometry is not None
    assert color is not None
    geometry.set_random_state(state=random)
    color.set_random_state(state=random)
    assert isinstance(dataset.normalize, NormalizeChannels)
    normalize = NormalizeIntensity(dataset.normalize.mean, dataset.normalize.std, channel_wise=True)
    image = dataset.stack.image[place].float() / 255
    images, moved = [], []
    for label in dataset.split(mask.float()):
        images.append(normalize(color(geometry(image))))
        moved.append(geometry(label, "nearest", randomize=False))
    return {
        EpisodeKeys.IMAGE: images[-1],
        EpisodeKeys.LABEL: moved[-1],
        EpisodeKeys.SUPPORT_IMAGE: torch.stack(images[:-1]),
        EpisodeKeys.SUPPORT_LABEL: torch.stack(moved[:-1]),
    }
