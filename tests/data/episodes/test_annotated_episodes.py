# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import Counter

import pytest
import torch

from monai_fewshot.data import AnnotatedEpisodes, SliceStack
from monai_fewshot.transforms import EpisodeAugmentation, RandAffineElastic
from tests.helpers.slice_stacks import annotated


@pytest.mark.parametrize(("ways", "shots"), [(1, 1), (1, 3), (2, 1), (3, 2)])
def test_annotated_episodes(ways, shots):
    stack = annotated()
    dataset = AnnotatedEpisodes(stack, 40, [2, 4, 5], ways=ways, shots=shots)
    query_shows = Counter()
    for index in range(40):
        slices, values, _draws = dataset.plan(index)
        assert len(set(values)) == ways
        assert set(values) <= {2, 4, 5}
        *support, query = slices
        assert len(support) == ways * shots
        assert stack.scan[query] not in stack.scan[support]
        for place, index_of_slice in enumerate(support):
            assert (stack.label[index_of_slice] == values[place // shots]).any()
        episode = dataset[index]
        assert torch.equal(episode["image"], stack.image[query])
        assert torch.equal(episode["support_image"], stack.image[support])
        for label, raw in zip([*episode["support_label"], episode["label"]], stack.label[slices], strict=True):
            expected = torch.zeros_like(label)
            for number, value in enumerate(values, 1):
                expected[raw == value] = number
            assert torch.equal(label, expected)
        assert episode["label"].any()
        query_shows.update(episode["label"].unique().tolist())
    assert set(query_shows) == set(range(ways + 1))


@pytest.mark.parametrize(
    ("classes", "ways", "message"),
    [
        ([2, 4], 3, r"3-way episodes need as many classes, got \[2, 4\]"),
        ([2, 4], 0, "0-way episodes need"),
        ([2, 9], 1, r"show in fewer than two training scans: 9 in 1\. .*leave these classes out, or give more scans"),
        ([2, 77, 9], 1, r"fewer than two training scans: 77 in 0, 9 in 1\."),
    ],
)
def test_impossible_annotated_episodes(classes, ways, message):
    with pytest.raises(ValueError, match=message):
        AnnotatedEpisodes(annotated(), 5, classes, ways)


def _images(count=6, size=8):
    """Color images, one to a scan: a square of class 1 in the even ones, of class 2 in the odd ones, an ignored row."""
    generator = torch.Generator().manual_seed(0)
    scans = []
    for number in range(count):
        label = torch.zeros(1, size, size, dtype=torch.uint8)
        label[:, 2:6, 2:6] = 1 + number % 2
        label[:, 4] = 255
        image = torch.randint(0, 256, (3, size, size), generator=generator).to(torch.uint8)
        scans.append({"image": image, "label": label})
    return SliceStack.from_scans(scans, label_key="label")


def test_ignored_pixels_stay_ignored():
    episodes = AnnotatedEpisodes(_images(), 8, [1, 2])
    for episode in episodes:
        for label in (episode["label"], *episode["support_label"]):
            assert (label[:, 4] == 255).all()
            assert set(label.unique().tolist()) == {0, 1, 255}


@pytest.mark.parametrize("ways", [1, 2])
def test_the_shots_of_a_class_are_different_images_and_none_is_the_query(ways):
    episodes = AnnotatedEpisodes(_images(), 30, [1, 2], ways, shots=2)
    for episode in episodes:
        images = [*episode["support_image"], episode["image"]]
        assert len(images) == 2 * ways + 1
        assert len({image.numpy().tobytes() for image in images}) == len(images)


def test_more_shots_than_images_repeat_some():
    episode = AnnotatedEpisodes(_images(4), 1, [1, 2], shots=5)[0]
    assert len({image.numpy().tobytes() for image in episode["support_image"]}) == 1


def test_images_are_normalized_after_their_augmentation():
    stack = _images()
    augmentation = EpisodeAugmentation(RandAffineElastic(), gamma=(0.5, 1.5))
    plain = AnnotatedEpisodes(stack, 3, [1, 2], augmentation=augmentation)
    normalized = AnnotatedEpisodes(stack, 3, [1, 2], augmentation=augmentation, normalize=lambda image: 2 * image - 1)
    for before, after in zip(plain, normalized, strict=True):
        for key in ("image", "support_image"):
            assert torch.equal(after[key], 2 * before[key] - 1)
        assert torch.equal(before["label"], after["label"])
