# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNet
from PIL import Image

from monai_fewshot.data import SliceStack
from monai_fewshot.transforms import EpisodeAugmentation, NormalizeChannels, RandAffineElastic
from monai_fewshot.workflows import SaliencyRefinement, write_masks

SIZE = 32


def _stack(count=24):
    """Dark discs on skin, with masks of which a third are wrong: a bite is missing or too much is in it."""
    random = np.random.default_rng(0)
    items, truths = [], []
    for number in range(count):
        rows, columns = np.indices((SIZE, SIZE))
        center, radius = random.uniform(12, 20, 2), random.uniform(5, 8)
        truth = np.hypot(rows - center[0], columns - center[1]) < radius
        image = np.where(truth, np.reshape((70, 50, 40), (3, 1, 1)), np.reshape((210, 160, 140), (3, 1, 1)))
        mask = truth.copy()
        if number % 3 == 0:
            mask[:, : int(center[1])] = False
        elif number % 3 == 1:
            mask |= np.hypot(rows - center[0], columns - center[1] - 5) < radius
        mask &= (rows > 2) & (columns > 2) & (rows < SIZE - 3) & (columns < SIZE - 3)
        image = np.clip(image + random.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
        items.append({"image": torch.from_numpy(image), "pseudo_label": torch.from_numpy(mask[None].astype(np.uint8))})
        truths.append(truth)
    return SliceStack.from_scans(items), np.stack(truths)


def _refinement(folder, stack, rounds=2, steps=100, seed=0):
    torch.manual_seed(0)
    network = BasicUNet(2, 3, 1, features=(8, 8, 8, 16, 16, 8), norm="batch")
    augmentation = EpisodeAugmentation(
        RandAffineElastic(0.5, rotate=0.2, translate=2, shear=0, zoom=(0.9, 1.1), alpha=0, flip=(0.5, 0.5)), None
    )
    return SaliencyRefinement(
        network, stack, augmentation, NormalizeChannels(), folder, rounds, steps, batch_size=8, lr=5e-3, seed=seed
    )


def _iou(masks, truths):
    masks = masks[:, 0].numpy() > 0
    return ((masks & truths).sum((1, 2)) / (masks | truths).sum((1, 2))).mean()


@pytest.fixture(scope="module")
def refined(tmp_path_factory):
    stack, truths = _stack()
    folder = tmp_path_factory.mktemp("refinement")
    return folder, stack, truths, _refinement(folder, stack).run()


def test_mistakes_that_do_not_go_with_the_looks_disappear(refined):
    _, stack, truths, masks = refined
    assert [tuple(m.shape) for m in masks] == [(24, 1, SIZE, SIZE)] * 3
    assert torch.equal(masks[0], (stack.label > 0).to(torch.uint8))
    before, *after = (_iou(m, truths) for m in masks)
    assert before < 0.8
    assert min(after) > 0.9
    assert masks[-1].unique().tolist() == [0, 1]


def test_an_interrupted_refinement_goes_on_as_if_it_had_not_been(refined, tmp_path):
    folder, stack, _, masks = refined
    _refinement(tmp_path, stack, rounds=1).run()
    assert [file.name for file in tmp_path.glob("[!.]*")] == ["round_1.pt"]
    done = (tmp_path / "round_1.pt").stat().st_mtime_ns
    again = _refinement(tmp_path, stack, rounds=2).run()
    assert (tmp_path / "round_1.pt").stat().st_mtime_ns == done
    assert all(torch.equal(one, other) for one, other in zip(masks, again, strict=True))
    one, other = (torch.load(f / "round_2.pt", weights_only=True)["model"] for f in (folder, tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_rounds_of_other_images_or_settings_are_not_taken_over(refined):
    folder, stack, _, _ = refined
    for other in (_refinement(folder, stack, seed=1), _refinement(folder, _stack(5)[0])):
        with pytest.raises(ValueError, match=r"round_1\.pt was made with other images or settings: choose another"):
            other.run()


def test_masks_that_reach_the_border_are_not_learned_from(tmp_path):
    stack, _ = _stack(8)
    stack.label[0, :, :, :] = 0
    stack.label[1, :, 10:20, :12] = 1
    trusted = _refinement(tmp_path, stack)._trusted(stack.label)
    assert trusted.tolist() == [False, False] + [True] * 6
    stack.label[2:, :, 10:20, :12] = 1
    assert _refinement(tmp_path, stack)._trusted(stack.label).tolist() == [False] + [True] * 7
    stack.label[:] = 0
    with pytest.raises(ValueError, match="All saliency masks are empty: are the images of one color"):
        _refinement(tmp_path, stack).run()


class Recorder(torch.nn.Module):
    """Notes where it computes, and finds nothing."""

    def __init__(self, device):
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros((), device=device))
        self.devices = []

    def forward(self, image):
        self.devices.append(image.device.type)
        logits = image[:, :1] * 0 + self.level
        return logits if self.training else torch.zeros(logits.shape)


def test_it_computes_where_episodes_are_made_not_where_the_images_lie(tmp_path):
    stack, _ = _stack(8)
    refinement = _refinement(tmp_path, replace(stack, device=torch.device("meta")), steps=2)
    refinement.network = Recorder("meta")
    refinement._train(1, stack.label)
    assert refinement.network.devices == ["meta"] * 2
    masks = refinement._predict(1)
    assert refinement.network.devices == ["meta"] * 6
    assert masks.device.type == "cpu"
    assert not masks.any()


def test_rounds_are_read_on_the_cpu_wherever_they_were_made(refined, monkeypatch):
    folder, stack, _, masks = refined
    places, load = [], torch.load

    def read(path, map_location, **settings):
        places.append(map_location)
        return load(path, map_location=map_location, **settings)

    monkeypatch.setattr(torch, "load", read)
    assert torch.equal(_refinement(folder, stack).run()[-1], masks[-1])
    assert places == ["cpu", "cpu"]


def test_masks_are_written_in_the_size_of_their_images(tmp_path):
    for name in ("a", "b"):
        Image.new("RGB", (50, 40)).save(tmp_path / f"{name}.jpg")
    images = [{"name": name, "image": str(tmp_path / f"{name}.jpg")} for name in ("a", "b")]
    masks = torch.zeros(2, 1, 20, 25, dtype=torch.uint8)
    masks[0, 0, 5:10, 5:20] = 1
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "b.png").touch()
    assert write_masks(masks, images, tmp_path / "masks") == 1
    assert [file.name for file in (tmp_path / "masks").iterdir()] == ["a.png"]
    written = np.asarray(Image.open(tmp_path / "masks" / "a.png"))
    expected = np.zeros((40, 50), np.uint8)
    expected[10:20, 10:40] = 255
    assert np.array_equal(written, expected)
