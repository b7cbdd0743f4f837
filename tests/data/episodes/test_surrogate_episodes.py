# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.data import DataLoader

from monai_fewshot.data import AnnotatedEpisodes, EpisodeSampler, SliceStack, SurrogateEpisodes
from monai_fewshot.transforms import Denoising, LocalShuffling, NormalizeChannels


def _stack(count=8, size=16, label_key="label", color=True):
    generator = torch.Generator().manual_seed(count)
    items = []
    for number in range(count):
        label = torch.zeros(1, size, size, dtype=torch.uint8)
        label[:, 4:12, 2 + number % 4 : 10] = 1 + number % 2
        image = torch.randint(0, 256, (3, size, size), generator=generator)
        items.append({"image": image.to(torch.uint8) if color else image.float() * 3 - 200, "label": label})
    return SliceStack.from_scans(items, label_key)


def _episodes(unlabeled=None, number=3, task=None, **options):
    annotated = AnnotatedEpisodes(_stack(), 10, [1, 2], normalize=NormalizeChannels())
    return SurrogateEpisodes(annotated, unlabeled or _stack(12, label_key=None), number, task or Denoising(), **options)


def test_images_without_annotations_stand_beside_each_episode():
    episodes = _episodes()
    for index, item in enumerate(episodes):
        plain = episodes.episodes[index]
        for key, value in plain.items():
            assert torch.equal(item[key], value)
        assert item["surrogate_image"].shape == item["surrogate_target"].shape == (3, 3, 16, 16)
        known = episodes.unlabeled.image.float() / 255
        places = [int((known - target).abs().sum((1, 2, 3)).argmin()) for target in item["surrogate_target"]]
        assert len(set(places)) == 3
        torch.testing.assert_close(item["surrogate_target"], known[places])


def test_corrupted_images_are_normalized_and_originals_are_not():
    normalize = NormalizeChannels()
    plain, normalized = _episodes(), _episodes(normalize=normalize)
    for before, after in zip(plain, normalized, strict=True):
        assert torch.equal(before["surrogate_target"], after["surrogate_target"])
        torch.testing.assert_close(after["surrogate_image"], normalize(before["surrogate_image"]))
    noise = torch.cat([item["surrogate_image"] - item["surrogate_target"] for item in plain])
    assert noise.std().item() == pytest.approx(0.2, rel=0.05)


def test_intensities_other_than_colors_are_corrupted_in_their_own_range():
    unlabeled = _stack(12, label_key=None, color=False)
    for item in _episodes(unlabeled, task=LocalShuffling(4, 1.0)):
        target = item["surrogate_target"]
        torch.testing.assert_close(target.amin((2, 3)), torch.zeros(3, 3))
        torch.testing.assert_close(target.amax((2, 3)), torch.ones(3, 3))
        known = unlabeled.image.float().flatten(2).sort(2).values
        for image in item["surrogate_image"].flatten(2).sort(2).values:
            assert min((known - image).abs().amax((1, 2))) < 0.5


def test_what_stands_beside_is_a_function_of_seed_and_number():
    one, same, other = _episodes(seed=1), _episodes(seed=1), _episodes(seed=2)
    batch = one.__getitems__([7, 2])
    for item, index in zip(batch, (7, 2), strict=True):
        for key, value in same[index].items():
            torch.testing.assert_close(item[key], value, atol=1e-6, rtol=0)
    assert not torch.equal(one[7]["surrogate_target"], other[7]["surrogate_target"])
    assert torch.equal(one[7]["image"], other[7]["image"])


def test_a_loader_takes_them_as_other_episodes():
    episodes = _episodes()
    batches = list(DataLoader(episodes, batch_size=4, sampler=EpisodeSampler(episodes)))
    assert [len(batch["image"]) for batch in batches] == [4, 4, 2]
    assert batches[0]["surrogate_image"].shape == (4, 3, 3, 16, 16)
    assert torch.equal(batches[1]["surrogate_target"][0], episodes[4]["surrogate_target"])


def test_sets_that_do_not_fit():
    with pytest.raises(ValueError, match=r"are \(3, 8, 8\), those of the episodes \(3, 16, 16\)"):
        _episodes(_stack(12, size=8, label_key=None))
    with pytest.raises(ValueError, match=r"20 images without annotations are asked for .* there are 12"):
        _episodes(number=20)
