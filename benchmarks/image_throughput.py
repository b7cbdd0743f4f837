# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""How fast the methods for color images train in batches, beside one episode at a time; for throughput.py.

Networks, losses and transforms are those of the bundles' configs/train.json. The plain way transforms the images of one
episode one by one on the CPU, with the transforms of single images, and trains on it alone in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import NormalizeIntensity
from step_timing import WARM_UP, timed_steps

from monai_fewshot.apps.benchmark import BUNDLES
from monai_fewshot.apps.phantom import make_phantom_lesions, make_phantom_shapes
from monai_fewshot.data import AnnotatedEpisodes, Episodes, MaskSplitEpisodes, SurrogateEpisodes
from monai_fewshot.engines import PrepareBatchEpisode
from monai_fewshot.transforms import NormalizeChannels
from monai_fewshot.utils import EpisodeKeys


class ImageMethod(NamedTuple):
    """A bundle, and the entries of its configuration that name the data."""

    bundle: str
    data: dict[str, str]


def phantom_methods(folder: Path, num_images: int = 20) -> list[ImageMethod]:
    """Draw a phantom for each method: lesions with masks, and classes of shapes with five images each."""
    lesions = make_phantom_lesions(folder / "lesions", num_images)
    shapes = make_phantom_shapes(folder / "shapes", num_images // 5, 5)
    return [
        ImageMethod("masksplit", {"dataset_dir": str(lesions), "masks_dir": str(lesions / "masks")}),
        ImageMethod("surrogate_fewshot", {"dataset_dir": str(shapes)}),
    ]


def configuration(settings: dict[str, Any], method: ImageMethod, batch_size: int, plain: bool) -> ConfigParser:
    """Read the training of a bundle, with stacks on the CPU where it is the plain one."""
    parser = ConfigParser()
    parser.read_config(BUNDLES / method.bundle / "configs" / "train.json")
    changed: dict[str, Any] = {
        **method.data,
        "image_size": [settings["method_size"]] * 2,
        "batch_size": batch_size,
        "epoch_length": settings["steps"] + WARM_UP,
        "device": settings["device"],
        "dtype": "$torch.float32" if plain else f"$torch.{settings['dtype']}",
        "channels_last": False if plain else settings["channels_last"],
        "compile": False if plain else settings["compile"],
    }
    if plain:
        changed["train#stack#device"] = "cpu"
        if "unlabeled" in parser["train"]:
            changed["train#unlabeled#device"] = "cpu"
    parser.update(changed)
    return parser


def image_method_cell(settings: dict[str, Any], method: ImageMethod, batch_size: int, plain: bool) -> dict[str, float]:
    """Time the training steps of a method, in this process."""
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    device, prepare = settings["device"], PrepareBatchEpisode()
    parser = configuration(settings, method, batch_size, plain)
    network, optimizer, loss, inferer, dataset = (
        parser.get_parsed_content(key) for key in ("network", "optimizer", "loss", "train#inferer", "train#dataset")
    )
    network.train()
    batches, random = iter(parser.get_parsed_content("train#dataloader")), np.random.RandomState(0)

    def make() -> Any:
        if not plain:
            return prepare(next(batches), device)
        return prepare({key: value[None] for key, value in plain_image_episode(dataset, random).items()}, device)

    def step(batch: Any) -> None:
        image, target, inputs, _ = batch
        optimizer.zero_grad(set_to_none=True)
        loss(inferer(image, network, *inputs), target).backward()
        optimizer.step()

    return timed_steps(make, step, settings["steps"] * (4 if plain else 1), device, batch_size)


def plain_image_episode(
    dataset: MaskSplitEpisodes | SurrogateEpisodes, random: np.random.RandomState
) -> dict[str, torch.Tensor]:
    """Make an episode image by image."""
    if isinstance(dataset, MaskSplitEpisodes):
        return plain_mask_split(dataset, random)
    assert isinstance(dataset.episodes, AnnotatedEpisodes)
    return {**plain_annotated(dataset.episodes, random), **plain_surrogate(dataset, random)}


def plain_mask_split(dataset: MaskSplitEpisodes, random: np.random.RandomState) -> dict[str, torch.Tensor]:
    """Split a mask, and transform the image with either half."""
    place, values = dataset.choices[random.randint(len(dataset.choices))]
    mask = dataset.stack.label[place] == values[random.randint(len(values))]
    dataset.split.set_random_state(state=random)
    return _transformed(dataset, [place, place], list(dataset.split(mask.float())), random)


def plain_annotated(dataset: AnnotatedEpisodes, random: np.random.RandomState) -> dict[str, torch.Tensor]:
    """Transform annotated images of one class."""
    places, values = dataset.draw_slices(random)
    return _transformed(dataset, places, [(dataset.stack.label[p] == values[0]).float() for p in places], random)


def plain_surrogate(dataset: SurrogateEpisodes, random: np.random.RandomState) -> dict[str, torch.Tensor]:
    """Corrupt images without annotations."""
    places = random.choice(len(dataset.unlabeled.image), dataset.num_unlabeled, replace=False)
    dataset.task.set_random_state(state=random)
    normalize = _normalize_one(dataset.normalize)
    targets = [dataset.unlabeled.image[place].float() / 255 for place in places]
    return {
        EpisodeKeys.SURROGATE_IMAGE: torch.stack([normalize(dataset.task(target)) for target in targets]),
        EpisodeKeys.SURROGATE_TARGET: torch.stack(targets),
    }


def _transformed(
    dataset: Episodes, places: list[int], labels: list[torch.Tensor], random: np.random.RandomState
) -> dict[str, torch.Tensor]:
    """Transform the images (C, H, W) of an episode with their labels (1, H, W), the query last, each with its draw."""
    assert dataset.augmentation is not None
    geometry, color = dataset.augmentation.geometry, dataset.augmentation.color
    assert geometry is not None
    assert color is not None
    geometry.set_random_state(state=random)
    color.set_random_state(state=random)
    normalize = _normalize_one(dataset.normalize)
    images, moved = [], []
    for place, label in zip(places, labels, strict=True):
        images.append(normalize(color(geometry(dataset.stack.image[place].float() / 255))))
        moved.append(geometry(label, "nearest", randomize=False))
    return {
        EpisodeKeys.IMAGE: images[-1],
        EpisodeKeys.LABEL: moved[-1],
        EpisodeKeys.SUPPORT_IMAGE: torch.stack(images[:-1]),
        EpisodeKeys.SUPPORT_LABEL: torch.stack(moved[:-1]),
    }


def _normalize_one(normalize: Any) -> NormalizeIntensity:
    assert isinstance(normalize, NormalizeChannels)
    return NormalizeIntensity(normalize.mean, normalize.std, channel_wise=True)
