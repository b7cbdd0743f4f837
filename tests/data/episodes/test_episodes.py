# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from monai.transforms import AdjustContrast

from monai_fewshot.data import AnnotatedEpisodes, EpisodeSampler, PseudoLabelEpisodes, SliceStack
from monai_fewshot.engines import PrepareBatchEpisode
from monai_fewshot.transforms import EpisodeAugmentation, RandAffineElastic

PSEUDO_LABELS = {0: {1, 2, 3}, 1: set(), 2: {2, 7}, 3: {1}, 4: {5, 6, 8, 9}}


def _pseudo_labels(channels=1):
    """Five slices of 24 x 20, the second without pseudo-labels; ids are not consecutive."""
    label = torch.zeros(5, 1, 24, 20, dtype=torch.int32)
    for index, values in PSEUDO_LABELS.items():
        for row, value in enumerate(sorted(values)):
            label[index, 0, 6 * row : 6 * row + 5, 3 + index : 15] = value
    image = torch.rand(5, channels, 24, 20, generator=torch.Generator().manual_seed(0))
    return SliceStack(image, label, torch.tensor([0, 0, 1, 1, 2]))


def _annotated(seed=0):
    """Four scans of three slices; scan 3 shows class 4 alone, class 9 is in one scan only."""
    label = torch.zeros(12, 1, 16, 16, dtype=torch.int32)
    label[:9, 0, 1:5, 1:5] = 2
    label[[0, 3, 4, 7], 0, 8:12, 2:6] = 4
    label[9:, 0, 8:12, 8:12] = 4
    label[1:8:2, 0, 2:9, 9:14] = 5
    label[2, 0, 13:16, 13:16] = 9
    image = torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    return SliceStack(image, label, torch.arange(4).repeat_interleave(3))


def _augmentation():
    return EpisodeAugmentation(RandAffineElastic())


def _same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def _batches(dataset, **options):
    return list(DataLoader(dataset, **options))


def _items(batches):
    return [{key: value[i] for key, value in batch.items()} for batch in batches for i in range(len(batch["image"]))]


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_episode_has_the_keys_and_shapes_of_the_contract(shots, channels):
    episode = PseudoLabelEpisodes(_pseudo_labels(channels), 10, shots, augmentation=_augmentation())[3]
    assert {key: tuple(value.shape) for key, value in episode.items()} == {
        "image": (channels, 24, 20),
        "label": (1, 24, 20),
        "support_image": (shots, channels, 24, 20),
        "support_label": (shots, 1, 24, 20),
    }
    assert all(type(value) is torch.Tensor and value.dtype == torch.float32 for value in episode.values())
    assert set(episode["support_label"].unique().tolist()) == {0, 1}


def test_an_episode_depends_on_seed_and_number_alone():
    dataset = PseudoLabelEpisodes(_pseudo_labels(), 8, seed=3, augmentation=_augmentation())
    again = PseudoLabelEpisodes(_pseudo_labels(), 50, seed=3, augmentation=_augmentation())
    forward, backward = [dataset[i] for i in range(8)], [again[i] for i in reversed(range(8))][::-1]
    assert all(_same(one, other) for one, other in zip(forward, backward, strict=True))
    assert len({episode["image"].sum().item() for episode in forward}) == 8
    other_seed = PseudoLabelEpisodes(_pseudo_labels(), 8, seed=4, augmentation=_augmentation())
    assert not any(_same(forward[i], other_seed[i]) for i in range(8))


def test_going_through_the_episodes_ends():
    dataset = PseudoLabelEpisodes(_pseudo_labels(), 3, augmentation=_augmentation())
    assert all(_same(episode, dataset[i]) for i, episode in zip(range(3), dataset, strict=True))


def test_a_batch_equals_single_episodes():
    dataset = PseudoLabelEpisodes(_pseudo_labels(), 8, shots=2, augmentation=_augmentation())
    for number, episode in zip([5, 0, 7], dataset.__getitems__([5, 0, 7]), strict=True):
        single = dataset[number]
        assert torch.equal(episode["support_label"], single["support_label"])
        for key in single:
            torch.testing.assert_close(episode[key], single[key], atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [PseudoLabelEpisodes, AnnotatedEpisodes])
def test_workers_and_batches_do_not_matter(make):
    if make is PseudoLabelEpisodes:
        dataset = PseudoLabelEpisodes(_pseudo_labels(), 7, augmentation=_augmentation())
    else:
        dataset = AnnotatedEpisodes(_annotated(), 7, [2, 4, 5], ways=2, shots=2, augmentation=_augmentation())
    expected = [dataset[i] for i in range(7)]
    for options in ({"batch_size": 3}, {"batch_size": 3, "num_workers": 2}, {"batch_size": 1, "num_workers": 1}):
        items = _items(_batches(dataset, **options))
        assert len(items) == 7
        for one, other in zip(items, expected, strict=True):
            assert torch.equal(one["label"], other["label"])
            for key in other:
                torch.testing.assert_close(one[key], other[key], atol=1e-5, rtol=0)


def test_an_episode_equals_the_ordinary_transforms_with_its_draws():
    stack = _pseudo_labels()
    dataset = PseudoLabelEpisodes(stack, 6, shots=2, seed=5, augmentation=_augmentation())
    for number in range(6):
        slices, (value,), draws = dataset.plan(number)
        items = []
        for index, draw in zip(slices, draws, strict=True):
            geometry = RandAffineElastic()
            geometry._drawn = draw.warp
            label = (stack.label[index] == value).float()
            image = AdjustContrast(draw.gamma)(geometry(stack.image[index], "bilinear", randomize=False))
            items.append((image, geometry(label, "nearest", randomize=False)))
        episode = dataset[number]
        images, labels = zip(*items, strict=True)
        torch.testing.assert_close(episode["image"], images[-1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(episode["support_image"], torch.stack(images[:-1]), atol=1e-5, rtol=1e-5)
        assert torch.equal(episode["label"], labels[-1])
        assert torch.equal(episode["support_label"], torch.stack(labels[:-1]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_episodes_of_the_cpu():
    stack = _pseudo_labels()
    there = replace(stack, image=stack.image.cuda(), label=stack.label.cuda())
    here, gpu = (PseudoLabelEpisodes(s, 8, augmentation=_augmentation()).__getitems__(range(8)) for s in (stack, there))
    for one, other in zip(here, gpu, strict=True):
        assert (one["label"] != other["label"].cpu()).float().mean() < 0.005, "rounding moves a pixel at an edge"
        torch.testing.assert_close(one["image"], other["image"].cpu(), atol=1e-4, rtol=0)


def test_support_and_query_of_a_pseudo_label_episode_are_one_slice():
    stack = _pseudo_labels()
    for episode in (PseudoLabelEpisodes(stack, 10, shots=2, seed=s)[0] for s in range(10)):
        assert (episode["support_image"] == episode["image"]).all()
        assert (episode["support_label"] == episode["label"]).all()
        (index,) = (i for i in range(5) if torch.equal(stack.image[i], episode["image"]))
        (value,) = stack.label[index][episode["label"] == 1].unique().tolist()
        assert torch.equal(episode["label"], (stack.label[index] == value).float())


def test_every_pseudo_label_is_drawn_and_nothing_else():
    dataset = PseudoLabelEpisodes(_pseudo_labels(), 1)
    random = np.random.RandomState(0)
    drawn = Counter()
    for _ in range(3000):
        (index, again), (value,) = dataset.draw_slices(random)
        assert index == again
        drawn[index, value] += 1
    assert set(drawn) == {(index, value) for index, values in PSEUDO_LABELS.items() for value in values}
    for index, values in PSEUDO_LABELS.items():
        for value in values:
            assert abs(drawn[index, value] - 750 / len(values)) < 100, "slices alike, then their pseudo-labels alike"


def test_augmentation_of_support_and_query():
    stack = _pseudo_labels()
    plain = PseudoLabelEpisodes(stack, 6, shots=2)
    query_only = PseudoLabelEpisodes(stack, 6, shots=2, augmentation=_augmentation(), augment_support=False)
    both = PseudoLabelEpisodes(stack, 6, shots=2, augmentation=_augmentation())
    before = stack.image.clone()
    for i in range(6):
        assert torch.equal(query_only[i]["support_image"], plain[i]["support_image"])
        assert torch.equal(query_only[i]["support_label"], plain[i]["support_label"])
        assert not torch.allclose(query_only[i]["image"], plain[i]["image"])
        images = [both[i]["image"], *both[i]["support_image"], plain[i]["image"]]
        assert not any(torch.allclose(images[a], images[b]) for a in range(4) for b in range(a))
    assert torch.equal(stack.image, before)


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_replicas_share_each_global_batch(num_replicas):
    dataset = PseudoLabelEpisodes(_pseudo_labels(), 12)
    samplers = [EpisodeSampler(dataset, num_replicas, rank) for rank in range(num_replicas)]
    numbers = []
    for epoch in (1, 2, 3):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        dealt = [list(sampler) for sampler in samplers]
        assert {len(part) for part in (*dealt, *samplers)} == {12 // num_replicas}
        each = 4 // num_replicas
        for start in range(0, 12 // num_replicas, each):
            numbers.append(sorted(n for part in dealt for n in part[start : start + each]))
    assert numbers == [list(range(start, start + 4)) for start in range(0, 36, 4)]


def test_uneven_lengths_leave_the_rest_out_on_every_replica():
    dataset = PseudoLabelEpisodes(_pseudo_labels(), 7)
    samplers = [EpisodeSampler(dataset, 2, rank) for rank in range(2)]
    for sampler in samplers:
        sampler.set_epoch(2)
    assert [list(sampler) for sampler in samplers] == [[6, 8, 10], [7, 9, 11]]


def test_a_trainer_moves_through_the_episodes():
    dataset = PseudoLabelEpisodes(_pseudo_labels(), 4, augmentation=_augmentation())
    sampler = EpisodeSampler(dataset)
    seen = []

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, image, support_image, support_label):
            seen.extend(image)
            return self.weight

    network = Network()
    SupervisedTrainer(
        device="cpu",
        max_epochs=3,
        train_data_loader=DataLoader(dataset, sampler=sampler, batch_size=2),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 0.1),
        loss_function=lambda output, target: output.sum(),
        prepare_batch=PrepareBatchEpisode(),
        decollate=False,
    ).run()
    assert len(seen) == 12
    for number, image in enumerate(seen):
        torch.testing.assert_close(image, dataset[number]["image"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("ways", "shots"), [(1, 1), (1, 3), (2, 1), (3, 2)])
def test_annotated_episodes(ways, shots):
    stack = _annotated()
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
        AnnotatedEpisodes(_annotated(), 5, classes, ways)


def test_no_pseudo_label_at_all():
    stack = _pseudo_labels()
    with pytest.raises(ValueError, match="No slice has a pseudo-label: is the foreground mask of every slice empty"):
        PseudoLabelEpisodes(replace(stack, label=torch.zeros_like(stack.label)), 5)


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


def _supervoxels():
    """Two scans of five slices of 8 x 8: value 1 in slices 0 to 2 of the first, 2 in slice 4 and, of four pixels, 3."""
    label = torch.zeros(10, 1, 8, 8, dtype=torch.int32)
    label[:3, 0, :4] = 1
    label[4, 0, 4:] = 2
    label[3, 0, 6:, 6:] = 2
    label[5, 0, :4] = 2
    image = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 8, 8)
    return SliceStack(image, label, torch.arange(2).repeat_interleave(5))


def test_support_and_query_are_successive_slices_of_one_supervoxel():
    dataset = PseudoLabelEpisodes(_supervoxels(), 200, successive=True, min_pixels=5)
    drawn = Counter((tuple(plan.slices), *plan.labeling) for plan in map(dataset.plan, range(200)))
    assert set(drawn) == {((0, 1), 1), ((1, 0), 1), ((1, 2), 1), ((2, 1), 1), ((4, 4), 2), ((5, 5), 2)}
    assert min(drawn.values()) > 10
    for episode in dataset.__getitems__(range(20)):
        assert episode["label"].any()
        assert episode["support_label"].any()


def test_shots_and_query_are_a_run_in_either_direction():
    dataset = PseudoLabelEpisodes(_supervoxels(), 50, shots=2, successive=True)
    drawn = {(tuple(plan.slices), *plan.labeling) for plan in map(dataset.plan, range(200))}
    assert drawn == {((0, 1, 2), 1), ((2, 1, 0), 1), ((3, 3, 3), 2), ((4, 4, 4), 2), ((5, 5, 5), 2)}


def test_pseudo_labels_of_few_pixels_are_not_drawn():
    drawn = {plan.slices[0] for plan in map(PseudoLabelEpisodes(_supervoxels(), 9).plan, range(99))}
    assert drawn == {0, 1, 2, 3, 4, 5}
    with pytest.raises(ValueError, match="are min_pixels, 33, too many"):
        PseudoLabelEpisodes(_supervoxels(), 1, min_pixels=33)
